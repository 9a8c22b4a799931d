package rootless

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"berth/base/fault"
)

// leadOut carries packets between the namespaces of pid and the host, and gives the process that does.
func leadOut(ctx context.Context, pid int, execRoot string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if path, err := exec.LookPath("pasta"); err == nil {
		return runPasta(ctx, path, pid, execRoot)
	}
	if path, err := exec.LookPath("slirp4netns"); err == nil {
		return runSlirp(path, pid)
	}
	return 0, fault.New(fault.NotImplemented, "neither pasta (package passt) nor slirp4netns is installed")
}

// pastaArgs: what listens inside is bound outside at once (-t, -u auto), nothing of the host's is shown inside (-T, -U none), and the
// namespace gets the host's addresses and routes, so that clients are seen as they are. See pasta(1).
func pastaArgs(pid int, pidfile string) []string {
	return []string{"--config-net", "-t", "auto", "-u", "auto", "-T", "none", "-U", "none", "--dns-forward", nameServer, "--quiet", "--pid", pidfile, strconv.Itoa(pid)}
}

// runPasta starts it; it goes to the background by itself when it is ready, and ends with the namespace.
func runPasta(ctx context.Context, path string, pid int, execRoot string) (int, error) {
	file := filepath.Join(execRoot, "pasta.pid")
	out, err := exec.CommandContext(ctx, path, pastaArgs(pid, file)...).CombinedOutput()
	if err != nil {
		return 0, fault.New(fault.Unavailable, "pasta: %v: %s", err, strings.TrimSpace(string(out)))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fault.Wrap(fault.Internal, err, "pasta's process")
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return n, fault.Wrap(fault.Internal, err, "pasta's process")
}

// slirpSettles is how long slirp4netns gets to fail.
const slirpSettles = 300 * time.Millisecond

// runSlirp leads out only: ports would have to be asked for one by one, and clients would all come from one address.
func runSlirp(path string, pid int) (int, error) {
	cmd := exec.Command(path, "--configure", "--mtu=65520", "--disable-host-loopback", strconv.Itoa(pid), "tap0")
	if err := cmd.Start(); err != nil {
		return 0, fault.Wrap(fault.Unavailable, err, "slirp4netns")
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return 0, fault.New(fault.Unavailable, "slirp4netns: %v", err)
	case <-time.After(slirpSettles):
		return cmd.Process.Pid, nil
	}
}
