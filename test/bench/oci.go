package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/kernel/cgroup"
	"berth/runtime/spec"
	"berth/test/live"
)

// insideEnv marks the copy of bench that runs in the private mount namespace.
const insideEnv = "BERTH_BENCH_INSIDE"

// A contender is a runtime with runc's command line.
type contender struct {
	name, path string
	cpuBudget  float64 // berth-oci's processor time over this one's
}

// benchOCI runs itself again in a mount namespace of its own, without the v2 mount of the hybrid layout:
// crun refuses that.
func benchOCI(t *table, o options) error {
	if os.Getenv(insideEnv) == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c",
			`umount /sys/fs/cgroup/unified 2>/dev/null; exec "$0" "$@"`, self, "-only", "oci$", "-n", strconv.Itoa(o.n), "-bin", o.bin)
		cmd.Env = append(os.Environ(), insideEnv+"=1")
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if _, rest, ok := bytes.Cut(out, []byte("\noci: ")); ok { // the machine and the title are there already
			_, rest, _ = bytes.Cut(rest, []byte("\n"))
			os.Stdout.Write(rest)
		}
		return err
	}

	dir, err := os.MkdirTemp("/var/tmp", "berth-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := makeBundle(dir); err != nil {
		return err
	}
	ours := contender{"berth-oci", filepath.Join(o.bin, "berth-oci"), 0}
	var peers []contender
	for _, p := range []contender{{"crun", "", 0.35}, {"runc", "", 0.18}} {
		path, err := exec.LookPath(p.name)
		if err != nil {
			t.note(p.name + " is not installed: left out")
			continue
		}
		p.path = path
		if v := versionOf(path); newer(v, "1.9") && p.name == "crun" {
			p.cpuBudget = 0.7 // crun 1.21 costs half of what Debian bookworm's 1.8.1 does
		}
		t.note(p.name + " " + versionOf(path))
		peers = append(peers, p)
	}
	if err := compareIsolation(t, dir, append([]contender{ours}, peers...)); err != nil {
		return err
	}
	all := append([]contender{ours}, peers...)
	results := make([]series, len(all))
	for i := range o.n {
		for k := range all {
			c := (i + k) % len(all) // nobody is always first
			s, err := runOnce(all[c], dir, fmt.Sprintf("bench-%d-%d-%d", os.Getpid(), i, c))
			if err != nil {
				return err
			}
			results[c] = append(results[c], s)
		}
	}
	for c, who := range all {
		t.row(who.name+" run, processor time", median(results[c].cpu()), 0, "ms")
		t.row(who.name+" run, wall time", median(results[c].wall()), 0, "ms")
	}
	for c, peer := range all[1:] {
		t.row("berth-oci ÷ "+peer.name+", processor time", median(ratios(results[0].cpu(), results[c+1].cpu())), peer.cpuBudget, "×")
		t.row("berth-oci ÷ "+peer.name+", wall time", median(ratios(results[0].wall(), results[c+1].wall())), 0, "×")
	}
	return nil
}

// makeBundle makes dir/bundle: the box's root and a docker-like config.json whose program is true.
func makeBundle(dir string) error {
	rootfs := filepath.Join(dir, "bundle", "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return err
	}
	box, err := live.BoxTar()
	if err != nil {
		return err
	}
	untar := exec.Command("tar", "-x", "-C", rootfs)
	untar.Stdin = bytes.NewReader(box)
	if out, err := untar.CombinedOutput(); err != nil {
		return fmt.Errorf("unpack the box: %w: %s", err, out)
	}
	for _, d := range []string{"proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			return err
		}
	}
	l, err := cgroup.Detect()
	if err != nil {
		return err
	}
	s := spec.Default(spec.DefaultOptions{Hostname: "berth", HostCgroupNamespace: l.Mode != cgroup.V2})
	delete(s.Linux.Sysctl, "net.ipv4.ping_group_range") // crun 1.8.1 does not take it
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bundle", "config.json"), data, 0o644); err != nil {
		return err
	}
	return setProgram(dir, "/bin/true")
}

// setProgram makes args the program of the bundle; no terminal, and a version that old peers accept.
func setProgram(dir string, args ...string) error {
	path := filepath.Join(dir, "bundle", "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(data, &config); err != nil {
		return err
	}
	process, ok := config["process"].(map[string]any)
	if !ok {
		return errors.New("config.json has no process")
	}
	process["args"], process["terminal"] = args, false
	config["ociVersion"] = "1.0.2"
	if data, err = json.Marshal(config); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// runOnce runs the bundle once. Its processor time is the runtime's and that of all it waited for,
// the container's first process among them.
func runOnce(c contender, dir, id string) (sample, error) {
	var out bytes.Buffer
	cmd := exec.Command(c.path, "--root", filepath.Join(dir, c.name), "run", "--bundle", filepath.Join(dir, "bundle"), id)
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err := cmd.Run()
	wall := time.Since(began)
	if err != nil {
		return sample{}, fmt.Errorf("%s run: %w: %s", c.name, err, out.String())
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return sample{}, errors.New("no rusage")
	}
	return sample{cpu: time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), wall: wall}, nil
}

// compareIsolation lets the container tell what it sees under each runtime. Being fast by isolating
// less would be no merit; differences are printed.
func compareIsolation(t *table, dir string, all []contender) error {
	const look = `for n in pid net uts ipc mnt cgroup; do [ -e /proc/self/ns/$n ] && echo ns $n; done
grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/self/status
awk '{for (i = 7; i <= NF; i++) if ($i == "-") { sub(/^devtmpfs/, "tmpfs", $(i+1)); print "mount", $5, $(i+1) } }' /proc/self/mountinfo | sort -u
for d in /dev/*; do echo "$d"; done`
	if err := setProgram(dir, "/bin/sh", "-c", look); err != nil {
		return err
	}
	defer func() { _ = setProgram(dir, "/bin/true") }()
	seen := make([]string, len(all))
	for i, c := range all {
		cmd := exec.Command(c.path, "--root", filepath.Join(dir, c.name), "run", "--bundle", filepath.Join(dir, "bundle"), fmt.Sprintf("look-%d-%d", os.Getpid(), i))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s run: %w: %s", c.name, err, out)
		}
		seen[i] = string(out)
	}
	for i, c := range all[1:] {
		if only := missing(seen[0], seen[i+1]); len(only) > 0 {
			t.note(fmt.Sprintf("under %s and not under berth-oci: %s", c.name, strings.Join(only, "; ")))
		} else {
			t.note("isolation seen inside: everything that " + c.name + " sets up is there")
		}
	}
	return nil
}

// missing lists the lines of theirs that ours has not.
func missing(ours, theirs string) []string {
	have := map[string]bool{}
	for line := range strings.Lines(ours) {
		have[strings.TrimSpace(line)] = true
	}
	var only []string
	for line := range strings.Lines(theirs) {
		if line = strings.TrimSpace(line); !have[line] {
			only = append(only, line)
		}
	}
	return only
}

// versionOf gives the first number in what `PATH --version` prints.
func versionOf(path string) string {
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "?"
	}
	for _, word := range strings.Fields(string(out)) {
		if word[0] >= '0' && word[0] <= '9' {
			return word
		}
	}
	return "?"
}

// newer compares the first two numbers of versions.
func newer(a, b string) bool {
	var x, y [2]int
	_, _ = fmt.Sscanf(a, "%d.%d", &x[0], &x[1]) // what does not parse stays 0
	_, _ = fmt.Sscanf(b, "%d.%d", &y[0], &y[1])
	return x[0] > y[0] || x[0] == y[0] && x[1] > y[1]
}
