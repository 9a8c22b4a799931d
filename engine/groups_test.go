package engine

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/engine/container"
	"berth/kernel/cgroup"
	"berth/kernel/cgroup/systemd"
)

// fakeManager is a systemd that makes plain cgroups and writes down what it was asked.
type fakeManager struct {
	t      *testing.T
	prefix string
	asked  []string
	broken bool
}

func (f *fakeManager) say(verb string, u systemd.Unit) error {
	f.asked = append(f.asked, verb+" "+u.Slice+" "+u.Name[:6])
	if f.broken {
		f.broken = false
		return fault.New(fault.Unavailable, "connection lost")
	}
	return nil
}

func (f *fakeManager) Path(u systemd.Unit) string { return f.prefix + u.Path() }
func (f *fakeManager) Close() error               { f.asked = append(f.asked, "close"); return nil }

func (f *fakeManager) Scope(_ context.Context, l cgroup.Layout, u systemd.Unit, pid int, r *specs.LinuxResources, _ []systemd.Property) (*cgroup.Cgroup, error) {
	if err := f.say("scope", u); err != nil {
		return nil, err
	}
	for range 6000 { // just after execve a process has no command line yet
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(b), "--hold") {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	setup, err := cgroup.Plan(l, f.Path(u), r)
	if err != nil {
		return nil, err
	}
	cg, err := setup.Apply()
	if err != nil {
		return nil, err
	}
	return cg, cg.Add(pid)
}

func (f *fakeManager) Update(_ context.Context, l cgroup.Layout, u systemd.Unit, r *specs.LinuxResources) error {
	if err := f.say("update", u); err != nil {
		return err
	}
	cg, err := cgroup.Open(l, f.Path(u))
	if err != nil {
		return err
	}
	return cg.Update(r)
}

func (f *fakeManager) Stop(_ context.Context, u systemd.Unit) error {
	if err := f.say("stop", u); err != nil {
		return err
	}
	l, _ := cgroup.Detect()
	cg, err := cgroup.Open(l, f.Path(u))
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return cg.Remove()
}

// A container lives in a scope as it lives in a directory; a lost connection is made anew.
func TestScopes(t *testing.T) {
	w := newWorld(t)
	f := &fakeManager{t: t, prefix: w.cfg.CgroupParent}
	w.Engine.groups = &scopes{layout: w.layout, slice: "test.slice", holder: w.cfg.InitPath, connect: func(context.Context) (manager, error) { return f, nil }}
	s := spec("cat /proc/self/cgroup; exec sleep 100")
	s.Namespaces.Cgroup = "host" // in a namespace of its own it would see / only
	id := w.run("", s)
	w.await(id, "test.slice/berth-"+id+".scope")
	f.broken = true
	if _, err := w.Update(t.Context(), id, container.Resources{Memory: 64 << 20}, nil); err != nil {
		t.Error(err)
	}
	w.eventually("one process, with its limit", func() bool {
		st, err := w.Stats(t.Context(), id)
		return err == nil && st.Cgroup.Memory.Limit == 64<<20 && st.Cgroup.Pids.Current == 1
	})
	if err := w.Remove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.asked, ", "); got != "scope test.slice berth-, update test.slice berth-, close, update test.slice berth-, stop test.slice berth-" {
		t.Error(got)
	}
	s.Resources.CgroupParent = "/plain"
	if _, err := w.Create(t.Context(), "", s); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "valid slice") {
		t.Error(err)
	}
	l, _ := cgroup.Detect()
	for i := range l.Hierarchies {
		os.Remove(l.Hierarchies[i].Place(l.Mode, w.cfg.CgroupParent+"/test.slice"))
	}
}
