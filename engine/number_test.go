package engine

import (
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"

	"berth/base/fault"
	"berth/engine/container"
	"berth/engine/store"
)

// The number of a container's process may be another's before the engine has heard that the container ended. Whatever goes by the number
// finds that out: here the engine is made to believe in the number of this test.
func TestNumberOfAnother(t *testing.T) {
	w := newWorld(t)
	id := w.run("", spec("sleep 100"))
	c := w.index.get(id)
	mine := c.snapshot().State.Pid
	believe := func(pid int) {
		t.Helper()
		if err := c.change(func(at *store.Standing) error { at.State.Pid = pid; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	do := func() (string, error) {
		t.Helper()
		eid, err := w.ExecCreate(t.Context(), id, container.ExecSpec{Cmd: []string{"cat", "/etc/hostname"}, AttachStdout: true})
		if err != nil {
			t.Fatal(err)
		}
		a, err := w.ExecStart(t.Context(), eid, ExecStartOptions{})
		if err != nil {
			return "", err
		}
		defer a.Conn.Close()
		out, _ := io.ReadAll(a.Conn)
		return string(out), nil
	}
	believe(os.Getpid())
	if out, err := do(); !fault.Is(err, fault.Conflict) {
		t.Errorf("an exec: %q, %v", out, err)
	}
	if _, _, err := w.launchProbe(t.Context(), c, []string{"true"}); err == nil || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("a health check's command: %v", err)
	}
	i := c.snapshot()
	i.Spec.Network.Mode = "private"
	if conn, err := w.dialerOf(c, i)(t.Context(), netip.MustParseAddrPort("127.0.0.1:9")); !fault.Is(err, fault.Conflict) {
		t.Errorf("a health check's question: %v, %v", conn, err)
	}
	if v, err := w.view(t.Context(), c); err == nil {
		v.close()
		t.Error("its files were found")
	}
	s := spec("true")
	s.Namespaces.PID = "container:" + id
	other := w.create("joins", s)
	if err := w.Start(t.Context(), other); !fault.Is(err, fault.Conflict) {
		t.Errorf("a container that joins it: %v", err)
	}
	believe(mine)
	if _, err := do(); err != nil {
		t.Errorf("with its own number: %v", err)
	}
}
