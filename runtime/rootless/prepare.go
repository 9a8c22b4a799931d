package rootless

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"berth/kernel/link"
	"berth/kernel/process"
)

// Descriptors of the inner process.
const (
	gateFD  = 3 // a byte comes when our ids are mapped, another one when we are known; it ends when nobody will know us
	readyFD = 4 // a byte goes when everything is prepared
)

// prepare makes the namespaces fit for an engine, and becomes the holder.
func prepare() error {
	if err := awaitGate(); err != nil {
		return err
	}
	if err := errors.Join(syscall.Setresgid(0, 0, 0), syscall.Setresuid(0, 0, 0)); err != nil {
		return fmt.Errorf("become root of the user namespace: %w", err)
	}
	if err := process.SetDumpable(true); err != nil { // or our own files in /proc would not be ours
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep our mounts to ourselves: %w", err)
	}
	if err := unifiedCgroup(); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil { // without a way out, too
		return err
	}
	if err := resolver(); err != nil {
		return err
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return err
	}
	if _, err := unix.Write(readyFD, []byte{'r'}); err != nil {
		return err
	}
	// Until rootless.json names us, nobody could find or end us: the namespaces go with who makes them.
	if err := awaitGate(); err != nil {
		return err
	}
	unix.CloseOnExec(readyFD)
	unix.CloseOnExec(gateFD)
	// From here on it does nothing but be there: a small program of the machine's will do.
	return unix.Exec(sleep, []string{"sleep", "infinity"}, nil)
}

// awaitGate waits for a byte at the gate.
func awaitGate() error {
	buf := make([]byte, 1)
	for {
		n, err := unix.Read(gateFD, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 || err != nil {
			return errors.New("the engine that makes these namespaces is gone")
		}
		return nil
	}
}

// loopbackUp switches lo on; it is the first link of a namespace.
func loopbackUp() error {
	c, err := link.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Do(link.Set(1, link.Change{Up: true}))
}

// unifiedCgroup puts the unified hierarchy where a pure cgroup v2 has it. Of a machine with both, the controllers of v1 are root's: what
// a user has a part of, if anything, is the unified one.
func unifiedCgroup() error {
	const usual, hybrid = "/sys/fs/cgroup", "/sys/fs/cgroup/unified"
	if isUnified(usual) || !isUnified(hybrid) {
		return nil
	}
	if err := unix.Mount(hybrid, usual, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show cgroup v2 alone: %w", err)
	}
	return nil
}

func isUnified(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && int64(st.Type) == unix.CGROUP2_SUPER_MAGIC
}

// resolver replaces name servers that only the host's own loopback reaches.
func resolver() error {
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return nil // none: the engine says what it does then
	}
	inside := insideResolver(string(text), os.Getenv(resolverVariable))
	if inside == string(text) {
		return nil
	}
	f, err := os.CreateTemp("", "berth-resolv-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // the mount keeps it
	if _, err := f.WriteString(inside); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	if err := unix.Mount(f.Name(), "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("give the namespace a resolv.conf: %w", err)
	}
	return nil
}

// insideResolver gives the text of resolv.conf(5) for the namespace: what is on the loopback becomes server, once.
func insideResolver(text, server string) string {
	var b strings.Builder
	replaced := false
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			b.WriteString(line)
			continue
		}
		if ip := net.ParseIP(f[1]); ip == nil || !ip.IsLoopback() {
			b.WriteString(line)
			continue
		}
		if !replaced {
			b.WriteString("nameserver " + server + "\n")
		}
		replaced = true
	}
	return b.String()
}
