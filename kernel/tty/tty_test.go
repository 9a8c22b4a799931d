package tty

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) Pair {
	t.Helper()
	p, err := Open()
	if err != nil {
		t.Skip("needs devpts: " + err.Error())
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestPair(t *testing.T) {
	p := pair(t)
	if !IsTerminal(p.Master) || !IsTerminal(p.Terminal) || !strings.HasPrefix(p.Name, "/dev/pts/") {
		t.Errorf("%+v is no terminal", p)
	}
	want := Size{40, 132}
	if err := SetSize(p.Master, want); err != nil {
		t.Fatal(err)
	}
	if got, err := GetSize(p.Terminal); got != want || err != nil {
		t.Errorf("size %v %v, want %v", got, err, want)
	}
	r, w, _ := os.Pipe()
	defer r.Close()
	defer w.Close()
	if IsTerminal(int(r.Fd())) {
		t.Error("a pipe is a terminal")
	}
	if _, err := GetSize(int(r.Fd())); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("size of a pipe: %v", err)
	}
}

func TestRaw(t *testing.T) {
	p := pair(t)
	old, err := MakeRaw(p.Terminal)
	if err != nil {
		t.Fatal(err)
	}
	unix.Write(p.Master, []byte("a\rb"))
	b := make([]byte, 10)
	if n, err := unix.Read(p.Terminal, b); err != nil || string(b[:n]) != "a\rb" {
		t.Errorf("raw read %q %v", b[:max(n, 0)], err)
	}
	if err := Restore(p.Terminal, old); err != nil {
		t.Fatal(err)
	}
	unix.Write(p.Master, []byte("c\r"))
	if n, err := unix.Read(p.Terminal, b); err != nil || string(b[:n]) != "c\n" {
		t.Errorf("cooked read %q %v", b[:max(n, 0)], err)
	}
}

// A program has the terminal as its own, learns its size, and its output's end is EIO on the master.
func TestProgram(t *testing.T) {
	p := pair(t)
	SetSize(p.Master, Size{24, 81})
	slave := os.NewFile(uintptr(p.Terminal), "terminal")
	cmd := exec.Command("/bin/sh", "-c", "stty size; exec </dev/tty; tty >/dev/null && echo controlling")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	p.Terminal = -1
	f, err := ConsoleFile(p.Master)
	if err != nil {
		t.Fatal(err)
	}
	p.Master = -1
	defer f.Close()
	f.SetReadDeadline(time.Now().Add(10 * time.Second))
	var out strings.Builder
	b := make([]byte, 256)
	for {
		n, err := f.Read(b)
		out.Write(b[:n])
		if err != nil {
			if !errors.Is(err, unix.EIO) {
				t.Errorf("the output ends with %v", err)
			}
			break
		}
	}
	cmd.Wait()
	if got := out.String(); got != "24 81\r\ncontrolling\r\n" {
		t.Errorf("output %q", got)
	}
}

func TestSendMaster(t *testing.T) {
	p := pair(t)
	s, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s[0])
	defer unix.Close(s[1])
	if err := SendMaster(s[0], p.Master, ""); err != nil {
		t.Fatal(err)
	}
	name, oob := make([]byte, 100), make([]byte, unix.CmsgSpace(4))
	n, m, _, _, err := unix.Recvmsg(s[1], name, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("%v %v", msgs, err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v %v", fds, err)
	}
	defer unix.Close(fds[0])
	if got, _ := Number(fds[0]); string(name[:n]) != "/dev/ptmx" || "/dev/pts/"+strconv.Itoa(got) != p.Name {
		t.Errorf("received %q, terminal %d, want %s", name[:n], got, p.Name)
	}
}
