package engine

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"berth/base/fault"
	"berth/engine/container"
	"berth/kernel/cgroup"
	"berth/network"
)

func TestCheckResources(t *testing.T) {
	yes, high, zero := true, int64(101), int64(0)
	v2 := cgroup.Layout{Mode: cgroup.V2}
	for _, c := range []struct {
		r        container.Resources
		l        cgroup.Layout
		want     string
		warnings int
	}{
		{container.Resources{}, v2, "", 0},
		{container.Resources{Memory: 1}, v2, "Minimum memory limit allowed is 6MB", 0},
		{container.Resources{Memory: -1}, v2, "Minimum memory limit allowed is 6MB", 0},
		{container.Resources{Memory: 6 << 20, MemorySwap: 5 << 20}, v2, "Minimum memoryswap limit should be larger than memory limit, see usage", 0},
		{container.Resources{Memory: 6 << 20, MemorySwap: -1}, v2, "", 0},
		{container.Resources{MemorySwap: 1 << 30}, v2, "You should always set the Memory limit when using Memoryswap limit, see usage", 0},
		{container.Resources{MemorySwappiness: &high}, v2, "Invalid value: 101, valid memory swappiness range is 0-100", 0},
		{container.Resources{Memory: 8 << 20, MemoryReservation: 9 << 20}, v2, "Minimum memory limit can not be less than memory reservation limit, see usage", 0},
		{container.Resources{KernelMemory: 1}, v2, "kernel-memory: the kernel dropped this limit in Linux 5.4; use --memory", 0},
		{container.Resources{NanoCPUs: 1e9, CPUPeriod: 1000}, v2, "Conflicting options: Nano CPUs and CPU Period cannot both be set.", 0},
		{container.Resources{NanoCPUs: 1e15}, v2, fmt.Sprintf("range of CPUs is from 0.01 to %[1]d.00, as there are only %[1]d CPUs available", runtime.NumCPU()), 0},
		{container.Resources{CPUPeriod: 10}, v2, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)", 0},
		{container.Resources{CPUQuota: 10}, v2, "CPU cfs quota can not be less than 1ms (i.e. 1000)", 0},
		{container.Resources{BlkioWeight: 5}, v2, "Range of blkio weight is from 10 to 1000", 0},
		{container.Resources{OOMScoreAdj: 2000}, v2, "Invalid value 2000, range for oom score adj is [-1000, 1000]", 0},
		{container.Resources{CPURealtimePeriod: 1000}, v2, "cgroup v2 has no real-time limits; leave --cpu-rt-period and --cpu-rt-runtime out", 0},
		{container.Resources{CpusetCpus: "0-"}, v2, "Invalid value 0- for cpuset cpus: invalid format: 0-", 0},
		{container.Resources{CpusetCpus: "4000"}, v2, "Requested CPUs are not available", 0},
		{container.Resources{Ulimits: []container.Ulimit{{Name: "x"}}}, v2, "invalid ulimit type: x", 0},
		{container.Resources{Ulimits: []container.Ulimit{{Name: "core", Soft: 5, Hard: 4}}}, v2, "ulimit soft limit must be less than or equal to hard limit: 5 > 4", 0},
		{container.Resources{Ulimits: []container.Ulimit{{Name: "core", Soft: -1, Hard: -1}}}, v2, "", 0},
		{container.Resources{CgroupParent: "../x"}, v2, `cgroup-parent "../x": the path may not leave its hierarchy`, 0},
		{container.Resources{OOMKillDisable: &yes, MemorySwappiness: &zero}, v2, "", 2},
		{container.Resources{OOMKillDisable: &yes, MemorySwappiness: &zero}, cgroup.Layout{Mode: cgroup.V1}, "", 0},
	} {
		w, err := CheckResources(&c.r, c.l)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") || len(w) != c.warnings || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %q %q, want %q", c.r, got, w, c.want)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]int{
		"TERM": 15, "SIGTERM": 15, "term": 15, "sigkill": 9, "9": 9, "64": 64, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "RTMAX": 64,
		"0": 0, "65": 0, "-1": 0, "": 0, "SIG": 0, "RTMIN+31": 0, "RTMAX-99": 0, "RTMIN+x": 0, "SIGSIGTERM": 0, "POLL": 29, "SIGCLD": 17,
	} {
		n, err := parseSignal(s)
		if int(n) != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	}
}

func TestParseDetachKeys(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "ctrl-p,ctrl-q": "\x10\x11", "a,ctrl-@": "a\x00", "ctrl-[": "\x1b", "ctrl-_": "\x1f", "DEL": "\x7f",
		"ctrl-1": "!", "ab": "!", "ctrl-": "!", ",": "!",
	} {
		k, err := ParseDetachKeys(s)
		if err != nil && want != "!" || err == nil && string(k) != want {
			t.Errorf("%q: %q, %v", s, k, err)
		}
	}
}

func TestEtcFiles(t *testing.T) {
	s := &container.Spec{Hostname: "box", Domainname: "example.org", Network: container.Network{Mode: "none", ExtraHosts: []string{"db:10.0.0.1", "six:[::2]", "gw:host-gateway"}}}
	without := &container.Spec{Security: container.Security{Sysctls: map[string]string{"net.ipv6.conf.all.disable_ipv6": "1"}}}
	if got := string(hostsFile(without, nil, network.Sandbox{}, nil)); got != "127.0.0.1\tlocalhost\n" {
		t.Errorf("%q", got)
	}
	if got := string(hostsFile(s, []byte("1.1.1.1 host"), network.Sandbox{}, nil)); got != localHosts+"10.0.0.1\tdb\n::2\tsix\n127.0.0.1\tgw\n" {
		t.Errorf("%q", got)
	}
	s.Network.Mode = "host"
	if got := string(hostsFile(s, []byte("1.1.1.1 host\n\n"), network.Sandbox{}, nil)); !strings.HasPrefix(got, "1.1.1.1 host\n10.0.0.1\tdb\n") {
		t.Errorf("%q", got)
	}
	s.Network = container.Network{Mode: "mine", ExtraHosts: []string{"gw:host-gateway"}}
	two := network.Sandbox{Resolver: true, Endpoints: []network.Endpoint{
		{IPv4: netip.MustParsePrefix("10.1.0.2/24"), Gateway4: netip.MustParseAddr("10.1.0.1"), IPv6: netip.MustParsePrefix("fd00::2/64")},
		{IPv4: netip.MustParsePrefix("10.2.0.2/24"), Gateway4: netip.MustParseAddr("10.2.0.1")},
	}}
	want := localHosts + "10.1.0.1\tgw\n10.9.9.9\tdb redis\n10.1.0.2\tbox.example.org box\nfd00::2\tbox.example.org box\n10.2.0.2\tbox.example.org box\n"
	if got := string(hostsFile(s, nil, two, []string{"10.9.9.9\tdb redis\n"})); got != want {
		t.Errorf("%q", got)
	}
	if got := reachable([]byte("nameserver 127.0.0.53\nnameserver 9.9.9.9\nnameserver ::1\n")); !slices.Equal(got, []string{"9.9.9.9"}) {
		t.Errorf("reachable: %v", got)
	}
	if got := reachable([]byte("nameserver 127.0.0.53\n")); !slices.Equal(got, []string{"8.8.8.8", "8.8.4.4"}) {
		t.Errorf("reachable: %v", got)
	}
	host := "# comment\nnameserver 8.8.8.8\nsearch a b\noptions x\n"
	for _, c := range []struct {
		n    container.Network
		want string
	}{
		{container.Network{}, host},
		{container.Network{DNS: []string{"1.1.1.1", "::1"}}, "# comment\nsearch a b\noptions x\nnameserver 1.1.1.1\nnameserver ::1\n"},
		{container.Network{DNSSearch: []string{"."}}, "# comment\nnameserver 8.8.8.8\noptions x\n"},
		{container.Network{DNSSearch: []string{"c"}, DNSOptions: []string{"y", "z"}}, "# comment\nnameserver 8.8.8.8\nsearch c\noptions y z\n"},
	} {
		if got := string(resolvFile(c.n, []byte(host))); got != c.want {
			t.Errorf("%+v: %q", c.n, got)
		}
	}
	for _, c := range []struct {
		n  container.Network
		ok bool
	}{
		{container.Network{DNS: []string{"1.1.1.1"}, ExtraHosts: []string{"a:::1"}}, true}, {container.Network{DNS: []string{"one"}}, false},
		{container.Network{ExtraHosts: []string{"a:b"}}, false}, {container.Network{DNSSearch: []string{"a\nnameserver 6.6.6.6"}}, false},
		{container.Network{Mode: "host", ExtraHosts: []string{"a:host-gateway"}}, true}, {container.Network{Mode: "none", ExtraHosts: []string{"a:host-gateway"}}, true},
	} {
		if err := checkAddresses(&container.Spec{Network: c.n}); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.n, err)
		}
	}
}

func TestMergeResources(t *testing.T) {
	old := container.Resources{Memory: 10, MemorySwap: 20, CPUShares: 5}
	for _, c := range []struct {
		r    container.Resources
		want string
	}{
		{container.Resources{Memory: 15}, "15 20 5"}, {container.Resources{Memory: 25}, "Memory limit should be smaller"}, {container.Resources{Memory: 25, MemorySwap: -1, CPUShares: 6}, "25 -1 6"},
	} {
		n, err := mergeResources(old, c.r)
		got := fmt.Sprint(n.Memory, " ", n.MemorySwap, " ", n.CPUShares)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%+v: %s", c.r, got)
		}
	}
	if _, err := mergeResources(container.Resources{NanoCPUs: 1}, container.Resources{CPUQuota: 1}); err == nil {
		t.Error("CPUs and quota together")
	}
}

// A thousand containers are found by any prefix, and a list of them is cheap.
func BenchmarkList(b *testing.B) {
	w := newWorld(b)
	for range 1000 {
		w.create("", spec("true"))
	}
	b.ResetTimer()
	for b.Loop() {
		if l, err := w.List(b.Context(), ListOptions{All: true}); err != nil || len(l) != 1000 {
			b.Fatal(len(l), err)
		}
	}
}

// Descendants gives what a test has said.
func (d *dirImages) Descendants(image string) []string { return nil }

// On cgroup v1 a privileged container is in the host's namespace of cgroups, whatever the setting is for others.
func TestDefaultCgroupNamespace(t *testing.T) {
	for _, c := range []struct {
		setting    string
		mode       cgroup.Mode
		privileged bool
		want       string
	}{
		{"", cgroup.V1, false, "host"}, {"private", cgroup.V1, false, "private"}, {"private", cgroup.V1, true, "host"},
		{"", cgroup.V2, false, "private"}, {"host", cgroup.V2, false, "host"}, {"private", cgroup.V2, true, "private"},
	} {
		e := &Engine{layout: cgroup.Layout{Mode: c.mode}}
		e.cfg.DefaultCgroupNS = c.setting
		if got := e.defaultCgroupNS(c.privileged); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
