package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"berth/runtime/keeper/wire"
)

func keys(held []Entry) string {
	s := ""
	for _, e := range held {
		s += e.Desc.ID + "/" + e.Desc.Proc
		if e.Exit != nil {
			s += fmt.Sprintf("=%d", e.Exit.Code)
		}
		if e.Drained {
			s += "."
		}
		if !e.Boot {
			s += "!"
		}
		s += " "
	}
	return s
}

func write(t *testing.T, j *Journal, words ...string) {
	t.Helper()
	for _, w := range words {
		var err error
		switch id := w[1:]; w[0] {
		case 'L':
			err = j.Launched(&wire.Desc{ID: id, PID: 7})
		case 'X':
			err = j.Exited(&wire.Exit{ID: id, Code: 3})
		case 'D':
			err = j.Drained(id, "")
		case 'A':
			err = j.Acked(id, "")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestReplay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, held, _, err := Open(path, "boot1")
	if err != nil || len(held) != 0 {
		t.Fatal(held, err)
	}
	write(t, j, "La", "Lb", "Xa", "Lc", "Xc", "Ac", "Xnobody")
	j.Close()

	j, held, cut, err := Open(path, "boot1")
	if err != nil || cut != 0 || keys(held) != "a/=3 b/ " {
		t.Fatal(keys(held), cut, err)
	}
	write(t, j, "Ld", "Aa", "La")
	j.Close()

	// After a reboot the same entries are of an earlier boot, new ones are not.
	j, held, _, err = Open(path, "boot2")
	if err != nil || keys(held) != "b/! d/! a/! " {
		t.Fatal(keys(held), err)
	}
	write(t, j, "Le", "Ab")
	j.Close()
	j, held, _, err = Open(path, "boot2")
	if err != nil || keys(held) != "d/! a/! e/ " {
		t.Fatal(keys(held), err)
	}
	j.Close()
}

// An adoption does not make an ended process live again; another process of that name is another one.
func TestLaunchedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _, _, err := Open(path, "b")
	if err != nil {
		t.Fatal(err)
	}
	write(t, j, "La", "Xa", "La", "Lb", "Xb", "Db", "Lc", "Xc", "Dc")
	if err := j.Launched(&wire.Desc{ID: "c", PID: 8}); err != nil {
		t.Fatal(err)
	}
	j.Close()
	for range 2 { // also as it was written anew
		j, held, _, err := Open(path, "b")
		if err != nil || keys(held) != "a/=3 b/=3. c/ " {
			t.Fatal(keys(held), err)
		}
		j.Close()
	}
}

// TestTornTail cuts the file at every length and damages every byte: what was written before the
// damage is always there, and the journal goes on.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "j")
	j, _, _, err := Open(path, "b")
	if err != nil {
		t.Fatal(err)
	}
	write(t, j, "La", "Xa")
	whole := j.size
	write(t, j, "Lb")
	j.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := int(whole); n < len(b); n++ {
		for _, damage := range []bool{false, true} {
			c := append([]byte(nil), b[:n]...)
			if damage {
				c = append([]byte(nil), b...)
				c[n] ^= 0x40
			}
			p := filepath.Join(dir, "torn")
			if err := os.WriteFile(p, c, 0o600); err != nil {
				t.Fatal(err)
			}
			j, held, _, err := Open(p, "b")
			if err != nil || keys(held) != "a/=3 " {
				t.Fatalf("cut at %d (damage %v): %q %v", n, damage, keys(held), err)
			}
			write(t, j, "Lz")
			j.Close()
			if _, held, _, _ := Open(p, "b"); keys(held) != "a/=3 z/ " {
				t.Fatalf("cut at %d: %q after going on", n, keys(held))
			}
		}
	}
}

func TestCompaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _, _, err := Open(path, "b")
	if err != nil {
		t.Fatal(err)
	}
	write(t, j, "Lkept")
	for i := 0; !j.Bloated(); i++ {
		if i > 100000 {
			t.Fatal("never bloated")
		}
		id := fmt.Sprint("c", i)
		write(t, j, "L"+id, "X"+id, "A"+id)
	}
	if err := j.Rewrite([]Entry{{Desc: wire.Desc{ID: "kept"}, Boot: true}}); err != nil {
		t.Fatal(err)
	}
	write(t, j, "Xkept")
	j.Close()
	st, err := os.Stat(path)
	if err != nil || st.Size() > 1000 {
		t.Fatal(st, err)
	}
	if _, held, _, _ := Open(path, "b"); keys(held) != "kept/=3 " {
		t.Fatal(keys(held))
	}
}

func FuzzParse(f *testing.F) {
	b := appendRecord([]byte(magic), 'B', nil, "b")
	b = appendRecord(b, 'L', &wire.Desc{ID: "x", Log: wire.LogConfig{Attrs: []wire.Attr{{Key: "a"}}}}, "")
	b = appendRecord(b, 'X', &wire.Exit{ID: "x"}, "")
	b = appendRecord(b, 'D', &wire.Request{ID: "x"}, "")
	f.Add(b)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		held, good := Parse(b, "b")
		if good > len(b) {
			t.Fatal("longer than the file")
		}
		if again, n := Parse(b[:good], "b"); n != good || len(again) != len(held) {
			t.Fatal("the good part reads differently")
		}
	})
}
