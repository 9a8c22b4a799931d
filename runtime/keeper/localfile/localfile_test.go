package localfile

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestDockersBytes reads a file that Docker 26.1 wrote for
//
//	echo one; echo two >&2; echo; head -c 40000 /dev/zero | tr "\0" x; echo; printf end
//
// and writes it again, byte for byte.
func TestDockersBytes(t *testing.T) {
	want, err := os.ReadFile("testdata/docker26.log")
	if err != nil {
		t.Fatal(err)
	}
	var again []byte
	var lines []string
	for rest := want; len(rest) > 0; {
		b, n, err := Cut(rest)
		if err != nil {
			t.Fatal(err)
		}
		var e Entry
		if err := e.Decode(b); err != nil {
			t.Fatal(err)
		}
		again = Append(again, e.Line, e.Source, e.Time, e.Partial, Attrs(e.Keys, e.Values))
		text := string(e.Line)
		if len(text) > 10 {
			text = fmt.Sprint(len(text), text[:1])
		}
		lines = append(lines, fmt.Sprintf("%s:%s:%d%t", e.Source[3:], text, e.Partial.Ordinal, e.Newline()))
		rest = rest[n:]
	}
	if !bytes.Equal(again, want) {
		t.Error("other bytes than Docker's")
	}
	got := strings.Join(lines, " ")
	for _, s := range []string{"out:one:0true", "err:two:0true", "out::0true", "out:16384x:1false", "out:16384x:2false", "out:7232x:3true", "out:end:1false"} {
		if !strings.Contains(got, s) {
			t.Errorf("no %s in %s", s, got)
		}
	}
}

func TestAttrs(t *testing.T) {
	long := strings.Repeat("v", 300)
	b := Append(nil, []byte("x"), "stderr", 5, Partial{}, Attrs([]string{"a", "b"}, []string{"", long}))
	entry, n, err := Cut(b)
	if err != nil || n != len(b) {
		t.Fatal(n, err)
	}
	var e Entry
	if err := e.Decode(entry); err != nil || len(e.Keys) != 2 || e.Keys[1] != "b" || e.Values[0] != "" || e.Values[1] != long || e.Time != 5 {
		t.Errorf("%+v, %v", e, err)
	}
	if size, err := LastLen(b); err != nil || int(size) != len(b) {
		t.Error(size, err)
	}
}

func TestPartialID(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range []string{"a", "b"} {
		for stream := range uint32(2) {
			for first := range int64(50) {
				x := PartialID(c, stream, first)
				if len(x) != 64 || strings.Trim(x, "0123456789abcdef") != "" || seen[x] || x != PartialID(c, stream, first) {
					t.Fatalf("%q", x)
				}
				seen[x] = true
			}
		}
	}
}

func TestDamage(t *testing.T) {
	one := Append(nil, []byte("one"), "stdout", 1, Partial{}, nil)
	two := Append(nil, []byte("two"), "stdout", 2, Partial{}, nil)
	for _, c := range []struct {
		name string
		b    []byte
		at   int // where the next record begins
	}{
		{"whole", one, 0},
		{"zeros before", append(make([]byte, 100), one...), 100},
		{"cut off before", append(bytes.Clone(one[5:]), two...), len(one) - 5},
		{"nothing", bytes.Repeat([]byte("x"), 50), 50},
		{"short", one[:9], 9},
	} {
		if at := Find(c.b, 0); at != c.at {
			t.Errorf("%s: found at %d, want %d", c.name, at, c.at)
		}
	}
	for _, c := range []struct {
		b   []byte
		err error
	}{{nil, ErrShort}, {one[:3], ErrShort}, {one[:len(one)-1], ErrShort}, {make([]byte, 8), ErrBroken}, {[]byte{255, 0, 0, 0, 1}, ErrBroken}} {
		if _, _, err := Cut(c.b); err != c.err {
			t.Errorf("%v: %v, want %v", c.b, err, c.err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := os.ReadFile("testdata/docker26.log")
	f.Add(b[:200])
	f.Add(Append(nil, []byte("x"), "stderr", 5, Partial{ID: "i", Ordinal: 2, Last: true}, Attrs([]string{"k"}, []string{"v"})))
	f.Fuzz(func(t *testing.T, b []byte) {
		for at := Find(b, 0); at < len(b); at = Find(b, at) {
			entry, n, err := Cut(b[at:])
			if err != nil {
				t.Fatal("found what is no record: ", err)
			}
			var e, again Entry
			if err := e.Decode(entry); err != nil {
				t.Fatal(err)
			}
			enc := Append(nil, e.Line, e.Source, e.Time, e.Partial, Attrs(e.Keys, e.Values))
			if entry, _, err = Cut(enc); err == nil {
				err = again.Decode(entry)
			}
			if err != nil || string(again.Line) != string(e.Line) || again.Source != e.Source || again.Newline() != e.Newline() {
				t.Fatalf("%+v became %+v, %v", e, again, err)
			}
			at += n
		}
	})
}
