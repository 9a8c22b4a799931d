package oci_test

//lint:file-ignore SA1019 prestart hooks are deprecated, and in every other bundle

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// note is a hook that appends what it sees to a file of the host, or of the container.
func note(name, file string) specs.Hook {
	script := fmt.Sprintf(`state=$(cat); echo "%s ns=$(readlink /proc/self/ns/mnt) root=$(test -e /etc/shadow && echo host || echo container) $state" >> %s`, name, file)
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}}
}

func TestHooksInOrder(t *testing.T) {
	r := newRuntime(t)
	log := filepath.Join(t.TempDir(), "log")
	for _, how := range []string{"create", "run"} {
		must(t, os.WriteFile(log, nil, 0o666))
		id := r.id()
		bundle := r.bundle(both(shell("sleep 1000"), func(s *specs.Spec) {
			s.Annotations = map[string]string{"a": "b"}
			s.Hooks = &specs.Hooks{
				Prestart:        []specs.Hook{note("prestart", log)},
				CreateRuntime:   []specs.Hook{note("createRuntime", log), note("createRuntime2", log)},
				CreateContainer: []specs.Hook{note("createContainer", log)},
				StartContainer:  []specs.Hook{note("startContainer", "/tmp/log")},
				Poststart:       []specs.Hook{note("poststart", log)},
				Poststop:        []specs.Hook{note("poststop", log)},
			}
		}))
		must(t, os.Chmod(bundle+"/rootfs/tmp", 0o777))
		inner := bundle + "/rootfs/tmp/log"
		if how == "create" {
			r.must("create", "--bundle", bundle, id)
			if _, err := os.Stat(inner); err == nil {
				t.Error("startContainer ran at create")
			}
			r.must("start", id)
		} else {
			r.must("run", "--detach", "--bundle", bundle, id)
		}
		pid := r.state(id).PID
		mnt, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		must(t, err)
		own, err := os.Readlink("/proc/self/ns/mnt")
		must(t, err)
		r.must("kill", id, "KILL")
		r.await(id, "stopped")
		r.must("delete", id)
		text, err := os.ReadFile(log)
		must(t, err)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		want := []struct {
			name, ns, status string
			pid              int
		}{
			{"prestart", own, "created", pid}, {"createRuntime", own, "created", pid}, {"createRuntime2", own, "created", pid},
			{"createContainer", mnt, "created", 1}, {"poststart", own, "running", pid}, {"poststop", own, "stopped", 0},
		}
		if len(lines) != len(want) {
			t.Fatalf("%s: hooks wrote\n%s", how, text)
		}
		for i, w := range want {
			checkNote(t, lines[i], id, bundle, w.name, w.ns, "host", w.status, w.pid)
		}
		text, err = os.ReadFile(inner)
		must(t, err)
		checkNote(t, strings.TrimSpace(string(text)), id, bundle, "startContainer", mnt, "container", "created", 1)
	}
}

func checkNote(t *testing.T, line, id, bundle, name, ns, root, status string, pid int) {
	t.Helper()
	head, text, _ := strings.Cut(line, " {")
	if want := fmt.Sprintf("%s ns=%s root=%s", name, ns, root); head != want {
		t.Errorf("a hook ran as %q, want %q", head, want)
	}
	var s specs.State
	if err := json.Unmarshal([]byte("{"+text), &s); err != nil {
		t.Errorf("%s was told %q: %v", name, text, err)
		return
	}
	if s.ID != id || s.Bundle != bundle || string(s.Status) != status || s.Pid != pid || s.Version != specs.Version || s.Annotations["a"] != "b" {
		t.Errorf("%s was told %+v, want status %s, pid %d", name, s, status, pid)
	}
}

func TestAFailingHookEndsTheContainer(t *testing.T) {
	r := newRuntime(t)
	failing := []specs.Hook{{Path: "/bin/true"}, {Path: "/bin/sh", Args: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}}}
	log := filepath.Join(t.TempDir(), "log")
	for _, name := range []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"} {
		id := r.id()
		bundle := r.bundle(both(shell("sleep 1000"), func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{Poststop: []specs.Hook{note("after-"+name, log)}}
			*map[string]*[]specs.Hook{
				"prestart": &s.Hooks.Prestart, "createRuntime": &s.Hooks.CreateRuntime, "createContainer": &s.Hooks.CreateContainer,
				"startContainer": &s.Hooks.StartContainer, "poststart": &s.Hooks.Poststart, "poststop": &s.Hooks.Poststop,
			}[name] = append(failing, s.Hooks.Poststop...)
		}))
		words := "error running " + name + " hook #1: exit status 3, stdout: out, stderr: err"
		if name == "poststop" { // told, and nothing else
			r.must("run", "--detach", "--bundle", bundle, id)
			if o := r.do("delete", "--force", id); o.code != 0 || !strings.Contains(o.err, words) {
				t.Errorf("poststop: %+v", o)
			}
		} else {
			r.fails(words, "run", "--detach", "--bundle", bundle, id)
		}
		r.fails("container does not exist", "state", id)
		text, err := os.ReadFile(log)
		if err != nil || !strings.Contains(string(text), "after-"+name+" ") {
			t.Errorf("%s: poststop hooks did not run: %s, %v", name, text, err)
		}
	}
}

// Up to version 1.2.0 of the specification a poststart hook's failure was a warning.
func TestPoststartOfOldBundles(t *testing.T) {
	r := newRuntime(t)
	log := filepath.Join(t.TempDir(), "log")
	id := r.id()
	bundle := r.bundle(both(shell("sleep 1000"), func(s *specs.Spec) {
		s.Version = "1.0.2"
		s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/false"}, note("second", log)}}
	}))
	if o := r.do("run", "--detach", "--bundle", bundle, id); o.code != 0 || !strings.Contains(o.err, "level=warning") {
		t.Errorf("%+v", o)
	}
	if s := r.state(id).Status; s != "running" {
		t.Errorf("status %s", s)
	}
	if text, err := os.ReadFile(log); err != nil || !strings.HasPrefix(string(text), "second ") {
		t.Errorf("the second hook wrote %q, %v", text, err)
	}
}

func TestAHookHasItsTime(t *testing.T) {
	r := newRuntime(t)
	one := 1
	begin := time.Now()
	bundle := r.bundle(func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Timeout: &one}}}
	})
	r.fails("hook ran past specified timeout of 1.0s", "run", "--bundle", bundle, r.id())
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	for words, h := range map[string]specs.Hook{
		"must be absolute":               {Path: "sh"},
		"timeout must be greater than":   {Path: "/bin/sh", Timeout: new(int)},
		"exec /no/pe: no such file or d": {Path: "/no/pe"},
	} {
		r.fails(words, "run", "--bundle", r.bundle(func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{h}} }), r.id())
	}
}
