package shortlived

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A program with the entry point sees its arguments and environment as they are, runs on one processor,
// and hands on neither late timers nor the variable.
const program = `package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"berth/kernel/shortlived"
)

func main() {
	procs := runtime.GOMAXPROCS(0)
	shortlived.Begin()
	out, err := exec.Command("/bin/sh", "-c", "echo GOMAXPROCS=$GOMAXPROCS; cat /proc/self/timerslack_ns").CombinedOutput()
	fmt.Printf("%d %q %q %s%v\n", procs, os.Args[1:], os.Environ(), out, err)
}
`

func TestEntry(t *testing.T) {
	if err := exec.Command("go", "version").Run(); err != nil {
		t.Skip("needs go: it builds a program of its own")
	}
	dir, err := os.MkdirTemp(".", "testdata-entry-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "program")
	build := exec.Command("go", "build", "-ldflags", "-E _berth_shortlived", "-o", bin, "./"+dir)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, c := range []struct {
		args, env []string
		want      string
	}{
		{nil, nil, `1 [] [] GOMAXPROCS= 50000 <nil>`},
		{[]string{"a", "", "b c"}, []string{"X=1", "Y="}, `1 ["a" "" "b c"] ["X=1" "Y="] GOMAXPROCS= 50000 <nil>`},
		{nil, []string{"GOMAXPROCS=3"}, `3 [] ["GOMAXPROCS=3"] GOMAXPROCS=3 50000 <nil>`},
	} {
		cmd := exec.Command(bin, c.args...)
		cmd.Env = append([]string{}, c.env...)
		out, err := cmd.CombinedOutput()
		if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != c.want {
			t.Errorf("%q %q:\n got %s (%v)\nwant %s", c.args, c.env, got, err, c.want)
		}
	}
	// More arguments than the entry point copies: they all arrive.
	many := strings.Split(strings.Repeat("x ", 9000), " ")
	out, err := exec.Command(bin, many...).CombinedOutput()
	if n := strings.Count(string(out), `"x"`); err != nil || n != 9000 {
		t.Errorf("%d of 9000 arguments arrived, %v", n, err)
	}
}
