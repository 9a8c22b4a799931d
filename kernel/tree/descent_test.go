package tree

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// deep makes depth directories below each other, each with a file, and gives the topmost.
func deep(t *testing.T, depth int) *Dir {
	t.Helper()
	top, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := top.RemoveAll("d"); err != nil { // Go's own holds one descriptor for each level
			t.Error(err)
		}
		top.Close()
	})
	at := top
	for range depth {
		if err := at.Mkdir("d", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := at.Symlink("x", "file"); err != nil {
			t.Fatal(err)
		}
		sub, err := at.Sub("d")
		if err != nil {
			t.Fatal(err)
		}
		if at != top {
			at.Close()
		}
		at = sub
	}
	at.Close()
	return top
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	return len(list)
}

// However deep a tree is, the walk needs the same few descriptors, and each directory is itself again on the way up.
func TestDescent(t *testing.T) {
	const depth = 3000
	top := deep(t, depth)
	before, most, levels := descriptors(t), 0, 0
	var descent Descent
	var walk func(d *Dir, level int) error
	walk = func(d *Dir, level int) error {
		was, err := d.Stat("")
		if err != nil {
			return err
		}
		if level%500 == 0 {
			most = max(most, descriptors(t))
		}
		names, err := d.Names()
		if err != nil {
			return err
		}
		for _, n := range names {
			if n != "d" {
				continue
			}
			sub, err := descent.Enter(d, n)
			if err != nil {
				return err
			}
			if err := walk(sub, level+1); err != nil {
				return err
			}
			if err := descent.Leave(sub); err != nil {
				return err
			}
			levels++
		}
		if now, err := d.Stat(""); err != nil || now.Ino != was.Ino {
			return fmt.Errorf("level %d is %d, and was %d: %v", level, now.Ino, was.Ino, err)
		}
		return nil
	}
	if err := walk(top, 0); err != nil {
		t.Fatal(err)
	}
	if levels != depth || most > before+descentOpen+10 || descriptors(t) != before {
		t.Errorf("%d levels with %d descriptors of %d; left %d", levels, most, before, descriptors(t))
	}
}

// A directory that was moved meanwhile leads nowhere else.
func TestDescentNoticesMoves(t *testing.T) {
	top := deep(t, descentOpen+4)
	defer top.RemoveAll("moved")
	var descent Descent
	at := top
	var entered []*Dir
	for range descentOpen + 4 {
		sub, err := descent.Enter(at, "d")
		if err != nil {
			t.Fatal(err)
		}
		entered = append(entered, sub)
		at = sub
	}
	// The second directory is closed by now; what lies in it goes elsewhere.
	if err := entered[1].Rename("d", top, "moved"); err == nil {
		t.Fatal("it is open still")
	}
	second, _, err := top.Open("d/d")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := second.Rename("d", top, "moved"); err != nil {
		t.Fatal(err)
	}
	for i := len(entered) - 1; i >= 0; i-- {
		if err := descent.Leave(entered[i]); err != nil {
			if i > 3 || !errors.Is(err, unix.ESTALE) {
				t.Errorf("%d: %v", i, err)
			}
			for ; i >= 0; i-- {
				entered[i].Close()
			}
			return
		}
	}
	t.Error("nobody noticed")
}
