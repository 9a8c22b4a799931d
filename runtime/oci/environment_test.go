package oci

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What stands where a list of users should be is not opened when it is no file: opening a device may do something.
func TestPasswdThatIsNoFile(t *testing.T) {
	root := t.TempDir()
	passwd := filepath.Join(root, "etc/passwd")
	if err := errors.Join(os.Mkdir(filepath.Dir(passwd), 0o755), unix.Mkfifo(passwd, 0o644)); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, passwd, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	if text := readPasswd(root, nil); text != "" {
		t.Errorf("read %q", text)
	}
	if n, err := unix.Read(watch, make([]byte, 4096)); err != unix.EAGAIN {
		t.Errorf("it was opened: %d bytes of events, %v", n, err)
	}

	if err := errors.Join(os.Remove(passwd), os.WriteFile(passwd, []byte("root:x:0:0::/root:/bin/sh\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if home := homeOf(readPasswd(root, nil), 0); home != "/root" {
		t.Errorf("root's home is %q", home)
	}
}
