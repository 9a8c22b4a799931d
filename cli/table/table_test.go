package table

import (
	"strings"
	"testing"
)

func TestTableFits(t *testing.T) {
	rows := [][]string{{"NAME", "FROM", "RULE"}, {"web", "anywhere", strings.Repeat("x", 60)}, {"a", "here", "short"}}
	for width, want := range map[int]string{
		0:  "NAME  FROM      RULE\nweb   anywhere  " + strings.Repeat("x", 60) + "\na     here      short\n",
		40: "NAME  FROM      RULE\nweb   anywhere  " + strings.Repeat("x", 23) + "…\na     here      short\n",
		24: "NAME  FROM      RULE\nweb   anywhere\n    " + strings.Repeat("x", 20) + "\na     here      short\n",
	} {
		var b strings.Builder
		Print(&b, rows, width)
		if b.String() != want {
			t.Errorf("width %d:\n%s\nwant\n%s", width, &b, want)
		}
		for _, line := range strings.Split(b.String(), "\n") {
			if width > 0 && len([]rune(line)) > width {
				t.Errorf("width %d: %q", width, line)
			}
		}
	}
}
