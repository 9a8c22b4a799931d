package runtimes

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/base/fault"
)

func TestNew(t *testing.T) {
	for _, c := range []struct {
		all   []Runtime
		deflt string
		want  string // part of the error; "" none
	}{
		{nil, "", ""},
		{nil, "berth", ""},
		{nil, "runc", ""}, // Docker's name for its default
		{[]Runtime{{Name: "crun", Path: "/usr/bin/crun"}, {Name: "runc", Path: "runc"}}, "crun", ""},
		{nil, "crun", "specified default runtime 'crun' does not exist"},
		{[]Runtime{{Name: "berth", Path: "/x"}}, "", "reserved"},
		{[]Runtime{{Name: "a"}}, "", "path must be configured"},
		{[]Runtime{{Name: "a b", Path: "/x"}}, "", "without spaces"},
		{[]Runtime{{Name: "a/b", Path: "/x"}}, "", "slashes"},
		{[]Runtime{{Name: "a", Path: "bin/x"}}, "", "absolute"},
		{[]Runtime{{Name: "a", Path: "/x"}, {Name: "a", Path: "/y"}}, "", "twice"},
	} {
		_, err := New(c.all, c.deflt)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v %q: %v, want %q", c.all, c.deflt, err, c.want)
		}
	}
}

func TestChosen(t *testing.T) {
	all := []Runtime{{Name: "crun", Path: "/usr/bin/crun"}}
	builtin, _ := New(all, "")
	crun, _ := New(append(all, Runtime{Name: "runc", Path: "runc"}), "crun")
	for _, c := range []struct {
		s           *Set
		asked, want string
	}{
		{nil, "", ""}, {nil, "runc", ""}, {nil, "crun", "!"},
		{builtin, "", ""}, {builtin, "berth", ""}, {builtin, "runc", ""}, {builtin, "io.containerd.runc.v2", ""}, {builtin, "crun", "crun"}, {builtin, "kata", "!"},
		{crun, "", "crun"}, {crun, "berth", ""}, {crun, "runc", "runc"}, {crun, "io.containerd.runc.v2", ""},
	} {
		got, err := c.s.Chosen(c.asked)
		if err != nil {
			got = "!"
			if !fault.Is(err, fault.Invalid) || err.Error() != "unknown or invalid runtime name: "+c.asked {
				t.Errorf("%q: %v", c.asked, err)
			}
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.asked, got, c.want)
		}
	}
	builtin.Become(crun)
	if got, _ := builtin.Chosen(""); got != "crun" || builtin.Default() != "crun" || len(builtin.All()) != 2 {
		t.Errorf("after a reload: %q", got)
	}
}

// script makes a runtime of a shell script.
func script(t *testing.T, text string) *Runtime {
	path := filepath.Join(t.TempDir(), "rt")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Runtime{Name: "rt", Path: path, Args: []string{"--arg"}}
}

func TestCommands(t *testing.T) {
	r := script(t, "")
	w := Place{Dir: "/b", State: "/s", ID: "c1"}
	p, err := r.Create(w, true)
	if err != nil {
		t.Fatal(err)
	}
	want := r.Path + " --arg --root /s --log /b/log.json --log-format json create --bundle /b --pid-file /b/pid --console-socket /b/tty.sock c1\n" +
		r.Path + " --arg --root /s --log /b/log.json --log-format json start c1\n"
	if got := p.String(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	dir := t.TempDir()
	x, err := r.Exec(Place{Dir: dir, State: "/s", ID: "c1"}, "0123456789abcdef", []byte("{}"), false)
	if err != nil {
		t.Fatal(err)
	}
	f := dir + "/0123456789ab"
	want = r.Path + " --arg --root /s --log " + f + ".log --log-format json exec --detach --process " + f + ".json --pid-file " + f + ".pid c1\n"
	if got := x.String(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if _, err := (&Runtime{Name: "x", Path: "/nonexistent"}).Create(w, false); err == nil || !strings.Contains(err.Error(), "is not there") {
		t.Error(err)
	}
}

func TestRunIsBounded(t *testing.T) {
	r := script(t, "case $4 in hang) sleep 1000 & sleep 1000;; fail) echo first >&2; echo the reason >&2; exit 3;; esac")
	w := Place{Dir: "/b", State: "/s", ID: "c1"}
	if err := r.Run(context.Background(), w, "fine"); err != nil {
		t.Error(err)
	}
	if err := r.Run(context.Background(), w, "fail"); err == nil || !strings.Contains(err.Error(), "the reason") || strings.Contains(err.Error(), "first") {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := r.Run(ctx, w, "hang"); !fault.Is(err, fault.Deadline) || time.Since(begun) > 30*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

func TestFeatures(t *testing.T) {
	s := &Set{}
	r := script(t, `[ "$2" = features ] && echo '{ "ociVersionMin": "1.0.0" }'`)
	left, leave := context.WithCancel(context.Background())
	leave()
	if got := s.Features(left, r); got != "" { // and what was not asked is not remembered
		t.Errorf("%q", got)
	}
	if got := s.Features(context.Background(), r); got != `{"ociVersionMin":"1.0.0"}` {
		t.Errorf("%q", got)
	}
	for _, text := range []string{"echo nonsense", "exit 1", "head -c 3000000 /dev/zero"} {
		if got := s.Features(context.Background(), script(t, text)); got != "" {
			t.Errorf("%s: %q", text, got)
		}
	}
}
