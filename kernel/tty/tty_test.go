package tty

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// open makes a pair in this mount namespace's devpts.
func open(t *testing.T) (master, terminal int) {
	t.Helper()
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("needs devpts: " + err.Error())
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	fd, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if e != 0 {
		t.Fatal(e)
	}
	return master, int(fd)
}

func TestSetSize(t *testing.T) {
	master, terminal := open(t)
	defer unix.Close(master)
	defer unix.Close(terminal)
	if err := SetSize(master, Size{40, 132}); err != nil {
		t.Fatal(err)
	}
	if got, err := unix.IoctlGetWinsize(terminal, unix.TIOCGWINSZ); err != nil || got.Row != 40 || got.Col != 132 {
		t.Errorf("size %+v %v", got, err)
	}
	r, w, _ := os.Pipe()
	defer r.Close()
	defer w.Close()
	if err := SetSize(int(r.Fd()), Size{1, 1}); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("size of a pipe: %v", err)
	}
}

// A program has the terminal as its own, learns its size, and its output's end is EIO on the master.
func TestProgram(t *testing.T) {
	master, terminal := open(t)
	SetSize(master, Size{24, 81})
	slave := os.NewFile(uintptr(terminal), "terminal")
	cmd := exec.Command("/bin/sh", "-c", "stty size; exec </dev/tty; tty >/dev/null && echo controlling")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	f, err := ConsoleFile(master)
	if err != nil {
		t.Fatal(err)
	}
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
