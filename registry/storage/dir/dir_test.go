package dir_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/base/fault"
	"berth/registry/storage"
	"berth/registry/storage/dir"
	"berth/registry/storage/drivertest"
)

func TestDriver(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Place {
		root := filepath.Join(t.TempDir(), "content")
		return drivertest.Place{Open: func(t *testing.T) storage.Driver {
			d, err := dir.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}}
	})
}

func TestOneProcess(t *testing.T) {
	root := t.TempDir()
	d, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Open(root); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second one: %v, want Conflict", err)
	}
	d.Close()
	again, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// Links that somebody plants lead nowhere: out of the root they are refused, inside it they are no values.
func TestLinks(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for link, to := range map[string]string{"file": secret, "dir": outside, "up": "../" + filepath.Base(outside)} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"file", "dir/secret", "up/secret"} {
		if v, err := d.Read(t.Context(), key); err == nil {
			t.Errorf("%s gives %q", key, v)
		}
	}
	if err := d.Write(t.Context(), "dir/new", []byte("x")); err == nil {
		t.Error("a write went out of the root")
	}
	for e, err := range d.List(t.Context(), "dir/") {
		if err == nil {
			t.Errorf("the listing went out of the root: %s", e.Key)
		}
	}
}

// After a reboot the hash of bytes that were never synced is worth nothing.
func TestStateOfAnotherBoot(t *testing.T) {
	root := t.TempDir()
	d, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	u, err := d.StartUpload(t.Context(), "01")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Append(t.Context(), strings.NewReader("bytes")); err != nil {
		t.Fatal(err)
	}
	if err := u.Save(t.Context(), []byte("note")); err != nil {
		t.Fatal(err)
	}
	d.Close()
	file := filepath.Join(root, "uploads", "01.state")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, note, _ := strings.Cut(string(data), "\n")
	if err := os.WriteFile(file, []byte("5 00000000-0000-0000-0000-000000000000\n"+note), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err = dir.Open(root); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if u, err = d.ResumeUpload(t.Context(), "01"); err != nil {
		t.Fatal(err)
	}
	if s, n := u.State(); string(s) != "note" || n != -1 || u.Size() != 5 {
		t.Errorf("%q at %d of %d", s, n, u.Size())
	}
}

// What a process leaves that was killed is gone or harmless when the next one opens the directory.
func TestLeftovers(t *testing.T) {
	root := t.TempDir()
	d, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	for _, f := range []string{"tmp/half", "uploads/aa.state"} {
		if err := os.WriteFile(filepath.Join(root, f), []byte("12\nx"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if d, err = dir.Open(root); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var left []string
	filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.HasSuffix(p, "/lock") {
			left = append(left, p)
		}
		return err
	})
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
