package oci

import (
	"fmt"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// extraFiles gives how many descriptors from 3 upwards the process gets: the sockets of systemd's
// socket activation (sd_listen_fds(3)), of which its environment is told, and then n more.
func (t *tool) extraFiles(p *specs.Process, n int) (int, error) {
	sockets := 0
	if pid, err := strconv.Atoi(os.Getenv("LISTEN_PID")); err == nil && pid == unix.Getpid() {
		sockets, _ = strconv.Atoi(os.Getenv("LISTEN_FDS"))
	}
	if sockets > 0 {
		p.Env = append(p.Env, "LISTEN_FDS="+strconv.Itoa(sockets), "LISTEN_PID=1")
	}
	for i := range n {
		var st unix.Stat_t
		if err := unix.Fstat(3+sockets+i, &st); err != nil {
			return 0, fmt.Errorf("unable to stat preserved-fd %d (of %d): %w", i, n, err)
		}
	}
	return max(sockets, 0) + max(n, 0), nil
}
