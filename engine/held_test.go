package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhereAThreadSleeps(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		state byte
		comm  string
		where string
	}{
		{"stack", map[string]string{
			"stat":  "12 (a) b) D 1 12 12",
			"stack": "[<0>] request_wait_answer+0x1c5/0x250\n[<0>] fuse_simple_request+0x191/0x300\n[<0>] fuse_getattr+0x1/0x2\n[<0>] vfs_getattr+0x1/0x2\n[<0>] five+0x1/0x2\n",
			"wchan": "request_wait_answer",
		}, 'D', "a) b", "request_wait_answer ← fuse_simple_request ← fuse_getattr ← vfs_getattr"},
		{"no stack", map[string]string{"stat": "1 (nfs) D 1", "wchan": "rpc_wait_bit_killable"}, 'D', "nfs", "rpc_wait_bit_killable"},
		{"nobody tells", map[string]string{"stat": "1 (x) S 1", "wchan": "0"}, 'S', "x", ""},
		{"torn", map[string]string{"stat": "1 (x"}, 0, "", ""},
		{"gone", nil, 0, "", ""},
	} {
		dir := t.TempDir()
		for name, text := range c.files {
			os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
		}
		state, comm := stateOf(dir)
		if where := sleepsIn(dir); state != c.state || comm != c.comm || where != c.where {
			t.Errorf("%s: %q %q %q", c.name, state, comm, where)
		}
	}
}

// A process that sleeps as processes do is not held by anything.
func TestNothingHoldsWhoOnlySleeps(t *testing.T) {
	if why := stuck(os.Getpid()); why != "" {
		t.Error(why)
	}
	if why := stuck(0); why != "" {
		t.Error(why)
	}
}

func TestAskedOnce(t *testing.T) {
	var a asked
	if _, err := a.stat(t.Context(), filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Error(err)
	}
	if i, err := a.stat(t.Context(), t.TempDir()); err != nil || !i.IsDir() {
		t.Error(err)
	}
	if len(a.open) != 0 {
		t.Errorf("%v", a.open)
	}
	if text := belowText("/proc/self"); !strings.Contains(text, "(proc), mounted at /proc") {
		t.Error(text)
	}
}
