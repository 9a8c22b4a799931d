package tree

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestCopyFrom(t *testing.T) {
	path := t.TempDir()
	text := make([]byte, 300<<10)
	for i := range text {
		text[i] = byte(i * 7)
	}
	if err := os.WriteFile(filepath.Join(path, "from"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	from, err := d.OpenFile("from")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	for name, do := range map[string]func(to *File) error{
		"kernel": func(to *File) error { return to.CopyFrom(from, 1000, 200_000, make([]byte, 4096)) },
		"buffer": func(to *File) error { return to.copyThrough(from, 1000, 200_000, make([]byte, 4096)) },
	} {
		to, err := d.Create(name, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := do(to); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		to.Close()
		b, err := os.ReadFile(filepath.Join(path, name))
		if err != nil || len(b) != 201_000 || string(b[1000:]) != string(text[1000:201_000]) || b[999] != 0 {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	to, err := d.Create("beyond", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := to.CopyFrom(from, 299<<10, 2<<10, make([]byte, 4096)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("past the end: %v", err)
	}
}

func TestShareFrom(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "from"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	from, err := d.OpenFile("from")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := d.Create("to", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	done, err := to.ShareFrom(from)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(filepath.Join(path, "to"))
	if want := map[bool]string{true: "text", false: ""}[done]; string(b) != want {
		t.Errorf("shared: %v; the copy holds %q", done, b)
	}
}
