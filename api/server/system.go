package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	networktypes "github.com/moby/moby/api/types/network"

	"berth/api/server/wire"
	"berth/engine"
	"berth/kernel/cgroup"
	"berth/kernel/probe"
)

// System is what `info` asks of the engine.
type System interface {
	Info(ctx context.Context) engine.Facts
}

// About is what `info` and `version` tell of how the engine was built and started.
type About struct {
	Version      string // of Berth, "0.1.0"
	Commit       string
	BuildTime    string // RFC 3339; "" unknown
	Experimental bool
	Debug        bool
	Labels       []string
	Hosts        []string // sockets, to warn about open ones
	TLS          bool
	TLSVerify    bool
	Seccomp      string // profile: "builtin", "unconfined", or a file
	NoNewPrivs   bool
	Rootless     bool            // the engine is an ordinary user's
	Authorizers  []string        // names of the plugins that decide about requests
	Registries   wire.Registries // how registries are reached
}

// ping tells a client that somebody is here, and which API.
func ping(s *Server, c *call) error {
	h := c.w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Berth-Version", s.about().Version)
	if s.cfg.Builds != nil {
		h.Set("Builder-Version", "2") // BuildKit's, as on Linux: clients take their plugin where they have one
	}
	h.Set("Swarm", "inactive")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if c.r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return c.done(http.StatusOK)
	}
	return c.body(http.StatusOK, "text/plain; charset=utf-8", []byte("OK"))
}

func version(s *Server, c *call) error {
	a := s.about()
	return c.json(http.StatusOK, wire.VersionOf(&wire.Facts{
		Version: a.Version, Commit: a.Commit, BuildTime: a.BuildTime, Experimental: a.Experimental, KernelVersion: probe.Release(),
	}))
}

func info(s *Server, c *call) error {
	return c.json(http.StatusOK, wire.Info(s.facts(c.ctx(), "/"), c.v))
}

// facts gathers what info tells. root is "/" but in tests. What cannot be read is left out: info must answer on a sick machine, too.
func (s *Server) facts(ctx context.Context, root string) *wire.Facts {
	a := s.about()
	f := &wire.Facts{
		Version: a.Version, Commit: a.Commit, BuildTime: a.BuildTime, Experimental: a.Experimental, Debug: a.Debug, Labels: a.Labels,
		KernelVersion: probe.Release(), NCPU: runtime.NumCPU(), Goroutines: runtime.NumGoroutine(), SystemTime: s.now().Format(time.RFC3339Nano),
		Controllers: map[string]bool{}, Registries: a.Registries, Authorization: a.Authorizers,
	}
	if bus, ok := s.cfg.Events.(interface {
		Count() (published uint64, listeners int)
	}); ok {
		_, f.Listeners = bus.Count()
	}
	if s.cfg.System != nil {
		f.Engine = s.cfg.System.Info(ctx)
	}
	f.Images = s.countImages()
	f.Hostname, _ = os.Hostname()
	f.OperatingSystem, f.OSVersion = osRelease(root)
	f.MemTotal = memTotal(root)
	f.IPv4Forwarding = readWord(root, "proc/sys/net/ipv4/ip_forward") == "1"
	f.BridgeNetfilter = [2]bool{
		readWord(root, "proc/sys/net/bridge/bridge-nf-call-iptables") == "1", readWord(root, "proc/sys/net/bridge/bridge-nf-call-ip6tables") == "1",
	}
	s.roomFacts(f)
	f.BackingFS = fileSystem(root, f.Engine.DataRoot)
	if open, err := os.ReadDir(filepath.Join(root, "proc/self/fd")); err == nil {
		f.OpenFiles = len(open)
	}
	f.ID = engineID(root, f.Engine.DataRoot)
	f.Security = s.security(&f.Engine)
	if layout, err := cgroup.Detect(); err == nil {
		limits(f, layout)
	}
	f.Warnings = append(append(s.openSockets(), f.Warnings...), logWarnings(&f.Engine)...)
	return f
}

// roomFacts adds what the rooms of networks and volumes tell.
func (s *Server) roomFacts(f *wire.Facts) {
	if s.cfg.Volumes != nil {
		f.VolumeDrivers = []string{"local"}
		if all, ok := s.cfg.Volumes.(interface{ Drivers() []string }); ok { // with plugins
			f.VolumeDrivers = all.Drivers()
		}
	}
	if s.cfg.Networks == nil {
		return
	}
	f.Network = wire.NetworkFacts{Drivers: s.cfg.Networks.Drivers(), Pools: s.cfg.Networks.Pools(), Firewall: s.cfg.Networks.Firewall()}
	if text := deviation(s.cfg.Networks); text != "" {
		f.Warnings = append(f.Warnings, text)
	}
	if !f.IPv4Forwarding {
		f.Warnings = append(f.Warnings, "WARNING: IPv4 forwarding is disabled")
	}
}

// deviation says where the default network does not look as Docker's.
func deviation(n Networks) string {
	const name, subnet = "docker0", "172.17.0.0/16"
	bridge, err := n.Get(networktypes.NetworkBridge)
	if err != nil {
		return "" // switched off
	}
	link, pools := bridge.Options["com.docker.network.bridge.name"], bridge.IPAM.Pools
	if link == name && len(pools) > 0 && pools[0].Subnet.Masked().String() == subnet {
		return ""
	}
	var subnets []string
	for _, p := range pools {
		subnets = append(subnets, p.Subnet.Masked().String())
	}
	return fmt.Sprintf("The default network is %s on %s (Docker's is %s on %s)", strings.Join(subnets, ", "), link, subnet, name)
}

// limits says by which controllers containers can be limited, and warns about those that are missing.
func limits(f *wire.Facts, layout cgroup.Layout) {
	for _, h := range layout.Hierarchies {
		for _, name := range h.Controllers {
			f.Controllers[name] = true
		}
		if !h.V2 && f.Controllers["memory"] && !f.SwapLimit {
			_, err := os.Stat(filepath.Join(h.Dir, "memory.memsw.limit_in_bytes"))
			f.SwapLimit = err == nil
			f.OOMKillDisable = true
		}
	}
	if layout.Mode == cgroup.V2 {
		_, err := os.Stat("/proc/swaps") // there when the kernel can swap at all
		f.SwapLimit = f.Controllers["memory"] && err == nil
	}
	for _, w := range []struct {
		has  bool
		text string
	}{
		{f.Controllers["memory"], "No memory limit support"},
		{f.SwapLimit, "No swap limit support"},
		{f.Controllers["cpu"], "No cpu cfs quota support"},
		{f.Controllers["cpu"], "No cpu shares support"},
		{f.Controllers["cpuset"], "No cpuset support"},
		{f.Controllers["pids"], "No pids limit support"},
	} {
		if !w.has {
			f.Warnings = append(f.Warnings, "WARNING: "+w.text)
		}
	}
}

// openSockets warns about sockets through which anybody is root.
func (s *Server) openSockets() (warnings []string) {
	const why = "\n         Access to the remote API is equivalent to root access on the host. Refer\n         to the 'Docker daemon attack surface' section in the documentation for\n         more information: https://docs.docker.com/go/attack-surface/"
	for _, host := range s.about().Hosts {
		address, tcp := strings.CutPrefix(host, "tcp://")
		switch {
		case !tcp:
		case !s.about().TLS:
			warnings = append(warnings, fmt.Sprintf("WARNING: API is accessible on http://%s without encryption.%s", address, why))
		case !s.about().TLSVerify:
			warnings = append(warnings, fmt.Sprintf("WARNING: API is accessible on https://%s without TLS client verification.%s", address, why))
		}
	}
	return warnings
}

// security lists what confines containers, in Docker's order.
func (s *Server) security(e *engine.Facts) (options []string) {
	a := s.about()
	if e.AppArmor {
		options = append(options, "name=apparmor")
	}
	profile := a.Seccomp
	if profile == "" {
		profile = "builtin"
	}
	options = append(options, "name=seccomp,profile="+profile)
	if e.SELinux {
		options = append(options, "name=selinux")
	}
	if a.Rootless {
		options = append(options, "name=rootless")
	}
	if e.Userns {
		options = append(options, "name=userns")
	}
	if e.CgroupVersion == "2" {
		options = append(options, "name=cgroupns")
	}
	if a.NoNewPrivs {
		options = append(options, "name=no-new-privileges")
	}
	return options
}

// osRelease reads PRETTY_NAME and VERSION_ID, see os-release(5).
func osRelease(root string) (name, version string) {
	for _, file := range []string{"etc/os-release", "usr/lib/os-release"} {
		data, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			value = strings.Trim(value, `"'`)
			switch key {
			case "PRETTY_NAME":
				name = value
			case "VERSION_ID":
				version = value
			}
		}
		break
	}
	if name == "" {
		name = "Linux"
	}
	return name, version
}

// memTotal is the host's memory in bytes.
func memTotal(root string) int64 {
	data, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "MemTotal:" {
			kb, _ := strconv.ParseInt(fields[1], 10, 64)
			return kb * 1024
		}
	}
	return 0
}

// fileSystem names the kind of file system that dir lies on, as Docker names the common ones; see proc_pid_mountinfo(5).
func fileSystem(root, dir string) string {
	data, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return "<unknown>"
	}
	best, kind := -1, "<unknown>"
	for scan := bufio.NewScanner(bytes.NewReader(data)); scan.Scan(); {
		before, after, ok := strings.Cut(scan.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 {
			continue
		}
		at := fields[4]
		if (dir == at || at == "/" || strings.HasPrefix(dir, at+"/")) && len(at) >= best {
			best = len(at)
			kind, _, _ = strings.Cut(after, " ")
		}
	}
	if kind == "ext4" || kind == "ext3" || kind == "ext2" {
		return "extfs"
	}
	return kind
}

// engineID is a name for this engine that stays: made of the machine's and the engine's directory. It looks like a UUID, as Docker's.
func engineID(root, dataRoot string) string {
	sum := sha256.Sum256([]byte("berth engine " + readWord(root, "etc/machine-id") + " " + dataRoot))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

func readWord(root, file string) string {
	data, _ := os.ReadFile(filepath.Join(root, file))
	return strings.TrimSpace(string(data))
}
