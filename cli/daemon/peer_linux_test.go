package daemon

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestPeerPID(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := PeerPID(conn); got != os.Getpid() {
		t.Errorf("peer is %d, want this process, %d", got, os.Getpid())
	}
}

func TestWaitGone(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := WaitGone(ctx, cmd.Process.Pid); err == nil {
		t.Error("a living process is told to be gone")
	}
	_ = cmd.Process.Kill()
	if err := WaitGone(context.Background(), cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if err := WaitGone(context.Background(), cmd.Process.Pid); err != nil {
		t.Error(err)
	}
}
