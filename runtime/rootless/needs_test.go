package rootless

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table into docs/rootless.md")

// TestDocumentedDifferences: the document shows the table that the program prints.
func TestDocumentedDifferences(t *testing.T) {
	const file, begin, end = "../../docs/rootless.md", "<!-- table: go test ./runtime/rootless -update -->\n", "<!-- end of the table -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	want := before + begin + markdown() + end + after
	if want == string(text) {
		return
	}
	if !*update {
		t.Errorf("%s has another table than the program: go test ./runtime/rootless -update", file)
		return
	}
	if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDifferences(t *testing.T) {
	for _, d := range Differences() {
		if d.Verdict != "works" && d.Verdict != "limited" && d.Verdict != "no" {
			t.Errorf("%s: verdict %q", d.What, d.Verdict)
		}
		if d.What == "" || d.How == "" || strings.ContainsAny(d.What+d.How, "|\n\t") {
			t.Errorf("%+v does not fit into a table", d)
		}
	}
}

// TestNeeds: every unmet need has a command, and only those that containers cannot do without say no.
func TestNeeds(t *testing.T) {
	for _, n := range Needs(context.Background()) {
		if n.What == "" || n.Found == "" && n.Met || (n.Mend == "") != n.Met {
			t.Errorf("%+v", n)
		}
	}
	for _, c := range []struct {
		need Need
		can  bool
		want string
	}{
		{Need{What: "a", Met: true, Found: "there"}, true, "a  yes  there"},
		{Need{What: "a", Optional: true, Found: "part", Mend: "do b"}, true, "# a: do b"},
		{Need{What: "a", Found: "not", Mend: "do b"}, false, "a  NO  not"},
	} {
		var b bytes.Buffer
		can, err := WriteNeeds(&b, []Need{c.need})
		if err != nil || can != c.can || !strings.Contains(strings.Join(strings.Fields(b.String()), " "), strings.Join(strings.Fields(c.want), " ")) {
			t.Errorf("%+v: %v, %v:\n%s", c.need, can, err, b.String())
		}
	}
}

// markdown is the table for docs/rootless.md.
func markdown() string {
	var b strings.Builder
	b.WriteString("| without root | | how |\n|---|---|---|\n")
	for _, d := range Differences() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", d.What, d.Verdict, d.How)
	}
	return b.String()
}
