package exec

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/build/session"
	"berth/build/solver"
	"berth/kernel/probe"
)

// client is a session with secrets and an agent that says what it hears.
func client(t testing.TB) (*session.Manager, session.Group) {
	t.Helper()
	m := session.NewManager(nil)
	dir := t.TempDir()
	sock := filepath.Join(dir, "agent")
	l, err := net.Listen("unix", sock)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 100)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					_, _ = c.Write(append([]byte("heard "), buf[:n]...))
				}
			}()
		}
	}()
	agents, err := sshprovider.NewSSHAgentProvider([]sshprovider.AgentConfig{{ID: "default", Paths: []string{sock}, Raw: true}})
	must(t, err)
	id, end, err := m.Local(context.Background(), "", secretsprovider.FromMap(map[string][]byte{"key": []byte(theSecret), "empty": {}}), agents)
	must(t, err)
	t.Cleanup(func() { end(); m.Close() })
	return m, session.NewGroup(id)
}

const theSecret = "s3cr3t-of-builds-8d1f"

func secretMount(id string, o *pb.SecretOpt) *pb.Mount {
	o.ID = id
	return &pb.Mount{Input: int64(pb.Empty), Dest: "/run/secrets/" + id, Output: int64(pb.SkipOutput), MountType: pb.MountType_SECRET, SecretOpt: o}
}

func TestSecrets(t *testing.T) {
	for _, facts := range []probe.Features{probe.Host(), probe.Host().Without(probe.MoveDetached)} {
		m, g := client(t)
		r := newRoom(t, func(c *Config) { c.Sessions, c.Facts = m, facts })
		run := &solver.Run{Sessions: g, Manager: m}
		do := func(op *pb.ExecOp) outcome {
			*run = solver.Run{Sessions: g, Manager: m}
			return r.runWith(context.Background(), op, run)
		}
		o := do(shell("cat /run/secrets/key; echo; stat -c %u:%g:%a /run/secrets/key; echo x >/run/secrets/key", secretMount("key", &pb.SecretOpt{Mode: 0o440, Uid: 7, Gid: 8})))
		if o.out != theSecret+"\n7:8:440\n" || o.failure == nil || !strings.Contains(o.err, "Read-only") {
			t.Errorf("%q, %q, %v", o.out, o.err, o.failure)
		}
		op := shell("echo $A; echo -$B-")
		op.Secretenv = []*pb.SecretEnv{{ID: "key", Name: "A"}, {ID: "none", Name: "B", Optional: true}}
		if o := do(op).ok(t); o.out != theSecret+"\n--\n" {
			t.Errorf("%q", o.out)
		}
		o = do(shell("ls /run/secrets/none; cat /run/secrets/empty; mount | grep -c /run/secrets", secretMount("none", &pb.SecretOpt{Optional: true}), secretMount("empty", &pb.SecretOpt{}))).ok(t)
		if o.out != "1\n" {
			t.Errorf("%q", o.out)
		}
		if got := r.paths(o.outputs[0]); slices.Contains(got, "/run") {
			t.Errorf("left %q", got)
		}
		if o := do(shell("true", secretMount("none", &pb.SecretOpt{}))); !fault.Is(o.failure, fault.NotFound) || !strings.Contains(o.failure.Error(), "secret none: not found") {
			t.Errorf("%v", o.failure)
		}
		leftNothing(t, r, theSecret)
	}
}

// leftNothing searches everything that a room has on disk for a text.
func leftNothing(t *testing.T, r *room, text string) {
	t.Helper()
	for _, dir := range []string{filepath.Dir(r.cfg.Root)} {
		must(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			b, err := os.ReadFile(p)
			if err == nil && strings.Contains(string(b), text) || strings.Contains(p, text) {
				t.Errorf("the secret is in %s", p)
			}
			return nil
		}))
	}
}

func TestAgent(t *testing.T) {
	m, g := client(t)
	r := newRoom(t, func(c *Config) { c.Sessions = m })
	agent := func(id string, optional bool) *pb.Mount {
		return &pb.Mount{Input: int64(pb.Empty), Dest: "/run/agent", Output: int64(pb.SkipOutput), MountType: pb.MountType_SSH,
			SSHOpt: &pb.SSHOpt{ID: id, Mode: 0o660, Uid: 7, Gid: 8, Optional: optional}}
	}
	heard := ""
	w := writer(func([]byte) {
		// The socket of the step, from outside: a busybox speaks to none.
		list, _ := filepath.Glob(filepath.Join(r.cfg.ExecRoot, "agent/*/agent"))
		if len(list) != 1 {
			return
		}
		c, err := net.Dial("unix", list[0])
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = c.Write([]byte("words"))
		buf := make([]byte, 100)
		n, _ := c.Read(buf)
		heard = string(buf[:n])
	})
	r.runWith(context.Background(), shell("test $(stat -c %u:%g:%a /run/agent) = 7:8:660 && test -S /run/agent && echo", agent("default", false)), &solver.Run{Sessions: g, Stdout: w, Stderr: w}).ok(t)
	if heard != "heard words" {
		t.Errorf("%q", heard)
	}
	o := r.runWith(context.Background(), shell("ls /run/agent || echo none", agent("other", true)), &solver.Run{Sessions: g}).ok(t)
	if o.out != "none\n" {
		t.Errorf("%q", o.out)
	}
	if o := r.runWith(context.Background(), shell("true", agent("other", false)), &solver.Run{Sessions: g}); o.failure == nil {
		t.Error("an agent that nobody forwards was found")
	}
	if list, _ := os.ReadDir(filepath.Join(r.cfg.ExecRoot, "agent")); len(list) != 0 {
		t.Errorf("left %v", list)
	}
}
