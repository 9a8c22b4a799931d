package rootless

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/base/fault"
)

// wayOut is a program that carries packets between the namespaces and the host.
type wayOut struct {
	name string // "pasta" or "slirp4netns"; "" there is none
	path string
	date int // of pasta's release, YYYYMMDD; 0 unknown
}

// Addresses inside at which the programs answer for the host's resolver, which matters where that listens on the host's loopback only.
const (
	pastaResolver = "169.254.1.53" // ours to choose, see --dns-forward in pasta(1)
	slirpResolver = "10.0.2.3"     // slirp4netns(1)
)

// findWayOut prefers pasta, which leads in as well.
func findWayOut(ctx context.Context) wayOut {
	if path, err := exec.LookPath("pasta"); err == nil {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		out, _ := exec.CommandContext(ctx, path, "--version").Output() // an unknown version is an old one
		return wayOut{"pasta", path, pastaDate(string(out))}
	}
	if path, err := exec.LookPath("slirp4netns"); err == nil {
		return wayOut{name: "slirp4netns", path: path}
	}
	return wayOut{}
}

// resolver is the address that takes the place of a loopback one in resolv.conf.
func (w wayOut) resolver() string {
	if w.name == "slirp4netns" {
		return slirpResolver
	}
	return pastaResolver
}

// open starts carrying packets for the namespaces of pid and gives the process that does it. forward asks for w.resolver().
func (w wayOut) open(ctx context.Context, pid int, execRoot string, forward bool) (int, error) {
	switch w.name {
	case "pasta":
		return w.openPasta(ctx, pid, execRoot, forward)
	case "slirp4netns":
		return w.openSlirp(pid)
	}
	return 0, fault.New(fault.NotImplemented, "neither pasta (package passt) nor slirp4netns is installed")
}

var pastaVersion = regexp.MustCompile(`\b(20[0-9]{2})_?([0-9]{2})_?([0-9]{2})\b|git(20[0-9]{6})|\^(20[0-9]{6})`)

// pastaDate reads what pasta --version says, in the ways of its distributors: "pasta 2024_12_11.09478d5", "pasta 0.0~git20240220.1e6f92b-1",
// "pasta 0^20250121.g4f2c8e7-2.fc41". 0: "unknown version".
func pastaDate(text string) int {
	line, _, _ := strings.Cut(text, "\n")
	m := pastaVersion.FindStringSubmatch(line)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1] + m[2] + m[3] + m[4] + m[5]) // digits
	return n
}

// scansWell is the release from which on pasta looks for listening sockets, of TCP and of UDP, no matter what else is asked for. Before
// it, -T none kept it from ever looking.
const scansWell = 20231107

// pastaArgs: what listens inside is bound outside at once (-t, -u auto), nothing of the host's is shown inside (-T, -U none, --no-map-gw),
// and the namespace gets the host's addresses and routes, so that clients are seen as they are. See pasta(1).
func (w wayOut) pastaArgs(pid int, pidfile string, forward bool) []string {
	args := []string{"--config-net", "--no-map-gw", "-t", "auto", "-u", "auto", "-U", "none"}
	if w.date >= scansWell {
		args = append(args, "-T", "none")
	}
	if forward {
		args = append(args, "--dns-forward", pastaResolver)
	}
	return append(args, "--quiet", "--pid", pidfile, strconv.Itoa(pid))
}

func pastaFile(execRoot string) string { return filepath.Join(execRoot, "pasta.pid") }

// openPasta starts it; it goes to the background by itself when it is ready.
func (w wayOut) openPasta(ctx context.Context, pid int, execRoot string, forward bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	file := pastaFile(execRoot)
	out, err := exec.CommandContext(ctx, w.path, w.pastaArgs(pid, file, forward)...).CombinedOutput()
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

// openSlirp leads out only: ports would have to be asked for one by one, and clients would all come from one address.
func (w wayOut) openSlirp(pid int) (int, error) {
	cmd := exec.Command(w.path, "--configure", "--mtu=65520", "--disable-host-loopback", strconv.Itoa(pid), "tap0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a terminal's signals are not for it
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
