package stepshell

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestShell(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("PATH", dir) // nothing but ours, and what we put there
	t.Setenv("WHO", "there")
	if err := os.WriteFile("prog", []byte("#!/bin/sh\nexit 7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	s := &Shell{In: strings.NewReader(`# nothing

echo "hello $WHO"  again
mkdir -p a/b
export X=one
echo $X
cp prog a
cd a
ls
cat nowhere
rm -rf b
find
prog
exit
echo never
`), Out: &out, Err: &errs}
	if code := s.Run(); code != 7 && code != 0 {
		t.Errorf("code %d", code)
	}
	for _, want := range []string{"hello there again\n", "one\n", " prog\n", " b\n", ".\nprog\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "never") || !strings.Contains(errs.String(), "nowhere") {
		t.Errorf("out %q, errors %q", out.String(), errs.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "a", "b")); err == nil {
		t.Error("rm left b")
	}
}

func TestExitCode(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	s := &Shell{In: strings.NewReader("no-such-program\n"), Out: &bytes.Buffer{}, Err: &bytes.Buffer{}}
	if code := s.Run(); code != 1 {
		t.Errorf("code %d, want 1", code)
	}
}
