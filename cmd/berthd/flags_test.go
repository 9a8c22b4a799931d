package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// load parses args beside a daemon.json with that text; no file when it is empty.
func load(t *testing.T, file string, args ...string) (config, error) {
	t.Helper()
	t.Setenv("DOCKER_CERT_PATH", "")
	path := filepath.Join(t.TempDir(), "daemon.json")
	if file != "" {
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config-file", path)
	}
	return parseFlags(args)
}

func TestDefaults(t *testing.T) {
	c, err := load(t, "{}")
	if err != nil {
		t.Fatal(err)
	}
	if c.DataRoot != "/var/lib/berth" || c.ExecRoot != "/run/berth" || c.Pidfile != "/run/berth/berthd.pid" || c.ID != "" ||
		len(c.Hosts) != 1 || c.Hosts[0] != "unix:///run/berth/berth.sock" || c.CgroupParent != "/berth" || c.Group != "docker" ||
		c.LogDriver != "json-file" || c.DefaultShmSize != 64<<20 || c.DefaultIPCMode != "private" || c.CgroupDriver != "cgroupfs" ||
		c.LogLevel != "info" || c.ShutdownTimeout != 15 || c.TLS || c.TLSInsecure {
		t.Errorf("defaults: %+v", c)
	}
}

func TestSecondEngineHasItsOwnNames(t *testing.T) {
	c, err := load(t, "", "--data-root", "/srv/b", "--exec-root", "/run/b", "-H", "unix:///run/b/s", "-H", "tcp://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	// printf /srv/b | sha256sum
	if c.ID != "f3d3e6" && len(c.ID) != 6 || c.CgroupParent != "/berth-"+c.ID || c.Pidfile != "/run/b/berthd.pid" || len(c.Hosts) != 2 {
		t.Errorf("%+v", c)
	}
}

func TestFileAndFlags(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		args       []string
		check      func(config) bool
		err        string
	}{
		{name: "file alone", file: `{"debug": true, "log-opts": {"max-size": "1m"}, "labels": ["a=b"], "hosts": ["unix:///x"], "default-shm-size": "8m",
			"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}}, "exec-opts": ["native.cgroupdriver=systemd"], "dns": ["1.1.1.1"], "live-restore": true}`,
			check: func(c config) bool {
				return c.Debug && c.LogOpts["max-size"] == "1m" && c.Labels[0] == "a=b" && c.Hosts[0] == "unix:///x" && c.DefaultShmSize == 8<<20 &&
					c.DefaultUlimits[0].String() == "nofile=1:2" && c.CgroupDriver == "systemd" && c.DNS[0] == "1.1.1.1"
			}},
		{name: "flags alone", args: []string{"-D", "--log-opt", "max-size=1m", "--log-opt", "max-file=2", "--default-ulimit", "nofile=1:2", "--default-shm-size=8m", "--live-restore", "--iptables=false", "--bridge=none"},
			check: func(c config) bool {
				return c.Debug && len(c.LogOpts) == 2 && len(c.DefaultUlimits) == 1 && c.DefaultShmSize == 8<<20
			}},
		{name: "shm size as number", file: `{"default-shm-size": 4096}`, check: func(c config) bool { return c.DefaultShmSize == 4096 }},
		{name: "empty file", file: " \n", check: func(c config) bool { return c.DataRoot == defaultDataRoot }},
		{name: "byte order mark", file: "\xef\xbb\xbf{\"debug\":true}", check: func(c config) bool { return c.Debug }},
		{name: "both", file: `{"labels": ["a=b"]}`, args: []string{"--label", "c=d"},
			err: "the following directives are specified both as a flag and in the configuration file: labels: (from flag: [c=d], from file: [a=b])"},
		{name: "unknown key", file: `{"zzz": 1, "yyy": 2}`, err: "the following directives don't match any configuration option: yyy, zzz"},
		{name: "twice", file: `{"debug": true, "debug": false}`, err: "debug is there twice"},
		{name: "bad json", file: `{"debug": tru}`, err: "invalid character"},
		{name: "no object", file: `[]`, err: "cannot unmarshal array"},
		{name: "null", file: `null`, err: "the file holds no JSON object"},
		{name: "wrong type", file: `{"debug": "yes"}`, err: "debug: json: cannot unmarshal string"},
		{name: "not in this build, file", file: `{"containerd": "/run/x"}`, err: "containerd: Berth has no containerd"},
		{name: "not in this build, flag", args: []string{"--containerd", "/run/x"}, err: `"--containerd" flag: Berth has no containerd`},
		{name: "of a containerd that is not there", args: []string{"--containerd-namespace", "a", "--containerd-plugins-namespace", "b"}, file: `{"features": {"containerd-snapshotter": true}}`,
			check: func(c config) bool { return true }},
		{name: "networks, flags", args: []string{"--bip", "10.0.0.1/24", "--default-address-pool", "base=10.8.0.0/16,size=24", "--default-network-opt", "bridge=a.b=c", "--icc=false", "--ip", "127.0.0.1"},
			check: func(c config) bool {
				n := c.Net
				return n.BIP.String() == "10.0.0.1/24" && len(n.Pools) == 1 && n.Pools[0].Size == 24 && n.Defaults["bridge"]["a.b"] == "c" && n.NoICC && n.BindIP.IsLoopback() && !n.NoRules
			}},
		{name: "networks, file", file: `{"bip": "10.0.0.1/24", "default-address-pools": [{"base": "10.8.0.0/16", "size": 24}], "default-network-opts": {"bridge": {"a.b": "c"}}, "iptables": false}`,
			check: func(c config) bool {
				n := c.Net
				return n.BIP.String() == "10.0.0.1/24" && len(n.Pools) == 1 && n.Defaults["bridge"]["a.b"] == "c" && n.NoRules && !n.NoICC
			}},
		{name: "bad mtu", args: []string{"--mtu", "-5"}, err: "invalid default MTU: -5"},
		{name: "bad bip", args: []string{"--bip", "10.0.0.1"}, err: "no address with a prefix length"},
		{name: "bip of the other family", args: []string{"--bip", "fd00::1/64"}, err: "not of the family"},
		{name: "bad pool", args: []string{"--default-address-pool", "base=10.8.0.0/16,size=8"}, err: "--default-address-pool"},
		{name: "bad pool key", args: []string{"--default-address-pool", "bas=10.8.0.0/16"}, err: "unexpected key 'bas'"},
		{name: "not in this build, list", file: `{"node-generic-resources": ["a"]}`, err: "node-generic-resources: there is no cluster mode"},
		{name: "registries", file: `{"registry-mirrors": ["https://m"], "insecure-registries": ["r:5000", "10.0.0.0/8"], "proxies": {"https-proxy": "http://p:3128"}, "max-concurrent-downloads": 7, "keep-blobs": true}`,
			check: func(c config) bool {
				i := c.Image
				return i.mirrors()[0] == "https://m/" && len(i.Insecure) == 2 && i.HTTPSProxy == "http://p:3128" && i.Downloads == 7 && i.Uploads == 5 && i.KeepBlobs && !i.StaleIfError
			}},
		{name: "mirror without scheme", args: []string{"--registry-mirror", "m.example"}, err: "no scheme specified"},
		{name: "mirror with a secret", args: []string{"--registry-mirror", "https://u:secret@m"}, err: "username/password not allowed in URI \"https://u:xxxxx@m\""},
		{name: "insecure URL", args: []string{"--insecure-registry", "http://r"}, err: "write HOST, HOST:PORT or a CIDR"},
		{name: "no downloads", args: []string{"--max-concurrent-downloads", "0"}, err: "less than 1"},
		{name: "proxies twice", args: []string{"--http-proxy", "http://me:secret@p", "--no-proxy", "x"}, file: `{"proxies": {"no-proxy": "y", "http-proxy": "http://me:other@q"}}`,
			err: "the following directives are specified both as a flag and in the configuration file: http-proxy: (from flag: http://xxxxx:xxxxx@p, from file: http://xxxxx:xxxxx@q), no-proxy: (from flag: x, from file: y)"},
		{name: "unknown proxy", file: `{"proxies": {"ftp-proxy": "x"}}`, err: "proxies: ftp-proxy is unknown"},
		{name: "only in the file", file: `{"min-api-version": "1.40"}`, err: "min-api-version: the oldest API version"},
		{name: "live-restore off", args: []string{"--live-restore=false"}, err: "containers always outlive the engine"},
		{name: "other storage driver", args: []string{"-s", "btrfs"}, err: "only storage driver is overlay2"},
		{name: "userland-proxy", args: []string{"--userland-proxy"}, err: "there is no userland proxy"},
		{name: "unknown flag", args: []string{"--nope"}, err: "unknown flag: --nope"},
		{name: "argument", args: []string{"run"}, err: "takes no arguments"},
		{name: "bad host", args: []string{"-H", "127.0.0.1:1"}, err: "has no scheme"},
		{name: "host of another kind", args: []string{"-H", "npipe://x"}, err: "unsupported proto 'npipe'"},
		{name: "relative socket", args: []string{"-H", "unix://x"}, err: "must be absolute"},
		{name: "bad level", args: []string{"-l", "loud"}, err: "must be one of debug, info"},
		{name: "bad dns", args: []string{"--dns", "x"}, err: "not an ip address"},
		{name: "bad exec-opt", args: []string{"--exec-opt", "a=b"}, err: "only native.cgroupdriver"},
		{name: "bad ulimit", file: `{"default-ulimits": {"nofile": {"Name": "core"}}}`, err: `"nofile" names the limit "core"`},
		{name: "tlsverify=false keeps TLS", args: []string{"--tlsverify=false"}, check: func(c config) bool { return c.TLS && !c.TLSVerify && !c.TLSInsecure }},
		{name: "tls=false allows plain tcp", args: []string{"--tls=false"}, check: func(c config) bool { return !c.TLS && c.TLSInsecure }},
		{name: "tlsverify in the file", file: `{"tlsverify": true}`, check: func(c config) bool {
			return c.TLS && c.TLSVerify && filepath.Base(c.TLSCACert) == "ca.pem" && filepath.Dir(c.TLSKey) == filepath.Dir(c.ConfigFile)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := load(t, tt.file, tt.args...)
			switch {
			case tt.err == "" && err != nil:
				t.Fatal(err)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Fatalf("error %v, want %q", err, tt.err)
			case tt.check != nil && !tt.check(c):
				t.Errorf("%+v", c)
			}
		})
	}
}

func TestNamedFileMustExist(t *testing.T) {
	_, err := parseFlags([]string{"--config-file", filepath.Join(t.TempDir(), "none")})
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("error %v", err)
	}
}

func TestHelpNamesEveryOptionOfThisBuild(t *testing.T) {
	for _, arg := range []string{"--help", "-h"} {
		c, err := parseFlags([]string{arg})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range table(&config{}) {
			if has := strings.Contains(c.Show, "--"+o.name+" "); o.name != "" && has == o.refused() {
				t.Errorf("--%s in help: %v, refused: %v", o.name, has, o.refused())
			}
		}
	}
}

func TestNoNameTwice(t *testing.T) {
	flags, keys := map[string]bool{}, map[string]bool{}
	for _, o := range table(&config{}) {
		if o.name != "" && flags[o.name] || o.key != "" && keys[o.key] {
			t.Errorf("%s / %s is there twice", o.name, o.key)
		}
		flags[o.name], keys[o.key] = true, true
	}
}

// Whatever stands in daemon.json, reading it ends in values or in an error.
func FuzzFile(f *testing.F) {
	for _, s := range []string{`{}`, `{"hosts":["unix:///x"],"log-opts":{"a":"b"}}`, `{"default-ulimits":{"nofile":{"Hard":-1}}}`, `{"debug":null}`, `{"a":{"b":[]}}x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := config{}
		_ = applyFile(data, table(&c), func(string) bool { return false })
	})
}

func TestLogOptions(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // of the error, "" for none
	}{
		{"", ""},
		{"--log-driver local", ""},
		{"--log-driver syslog --log-opt syslog-address=udp://h:1 --log-opt mode=non-blocking", ""},
		{"--log-bound 100m --log-collector-optional", ""},
		{"--log-bound 10k", "--log-bound: 10KiB is less than a line may take; give 64k or more"},
		{"--log-driver awslogs", "--log-driver awslogs: log driver awslogs is not in this build; there are fluentd, gelf, journald, json-file, local, none, syslog"},
		{"--log-driver nosuch", `--log-driver nosuch: error looking up logging plugin nosuch: plugin "nosuch" not found`},
		{"--log-opt foo=1", "--log-driver json-file: unknown log opt 'foo' for json-file log driver"},
		{"--log-driver gelf", "--log-driver gelf: gelf-address is a required parameter"},
	} {
		cfg, err := parseFlags(append(strings.Fields(c.args), "--config-file", emptyFile(t)))
		if got := fmt.Sprint(err); err == nil && c.want != "" || err != nil && got != c.want {
			t.Errorf("%s: %s, want %s", c.args, got, c.want)
		}
		if labels := strings.Join(cfg.Logs.labels(), " "); strings.Contains(c.args, "100m") && labels != "berth.log-bound=100MiB berth.log-collector-optional=true" {
			t.Errorf("%s: %s", c.args, labels)
		}
	}
}

func emptyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What the environment names as proxies is used, and told by info.
func TestProxiesOfTheEnvironment(t *testing.T) {
	for name, value := range map[string]string{"HTTP_PROXY": "http://env:1", "HTTPS_PROXY": "http://env:2", "NO_PROXY": "inside", "http_proxy": "", "https_proxy": "", "no_proxy": ""} {
		t.Setenv(name, value)
	}
	c, err := load(t, "", "--https-proxy", "http://flag:3")
	if err != nil {
		t.Fatal(err)
	}
	if r := about(c).Registries; r.HTTPProxy != "http://env:1" || r.HTTPSProxy != "http://flag:3" || r.NoProxy != "inside" {
		t.Errorf("%+v", r)
	}
}
