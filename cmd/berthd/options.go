package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
)

// option is one thing that can be said on the command line or in daemon.json.
type option struct {
	name, short string // flag
	key         string // in daemon.json; "" only as a flag
	help        string
	value       value
}

func (o option) refused() bool { _, is := o.value.(*refusal); return is }

// value is where an option's text goes. It is a pflag.Value that can also be read from JSON.
type value interface {
	String() string
	Set(string) error
	Type() string
	setJSON(json.RawMessage) error
	given() bool // was set at all, by flag or file
}

// Reasons for options that dockerd has and this build has not.
const (
	noContainerd = "Berth has no containerd: its own runtime starts containers"
	noSwarm      = "there is no cluster mode in this build"
)

// table lists every option. The order does not matter; help sorts.
func table(c *config) []option {
	at := defaultPlaces()
	return append([]option{
		{"host", "H", "hosts", "Socket to serve on: unix://PATH, tcp://HOST:PORT, fd:// (default " + defaultHost + "); may be repeated", &list{to: &c.Hosts, check: checkHost}},
		{"data-root", "", "data-root", "Root directory of persistent state", newText(&c.DataRoot, at.dataRoot)},
		{"exec-root", "", "exec-root", "Root directory of state that lives until a reboot", newText(&c.ExecRoot, at.execRoot)},
		{"pidfile", "p", "pidfile", "File for the engine's process id (default EXEC-ROOT/berthd.pid)", newText(&c.Pidfile, "")},
		{"config-file", "", "", "Configuration file", newText(&c.ConfigFile, at.configFile)},
		{"group", "G", "group", "Group that may use unix sockets, if it exists", newText(&c.Group, "docker")},
		{"debug", "D", "debug", "Log everything", &boolean{to: &c.Debug}},
		{"log-level", "l", "log-level", `Least severe messages to log: "debug", "info", "warn", "error", "fatal"`, newText(&c.LogLevel, "info", "debug", "info", "warn", "error", "fatal")},
		{"log-format", "", "log-format", `Form of the engine's own log: "text", "json"`, newText(&c.LogFormat, "text", "text", "json")},
		{"tls", "", "tls", "Use TLS; implied by --tlsverify", &boolean{to: &c.TLS}},
		{"tlsverify", "", "tlsverify", "Use TLS and accept only clients with a certificate", &boolean{to: &c.TLSVerify}},
		{"tlscacert", "", "tlscacert", "Trust client certificates signed by this CA (default ca.pem in DOCKER_CERT_PATH, else beside the configuration file)", newText(&c.TLSCACert, "")},
		{"tlscert", "", "tlscert", "TLS certificate (default cert.pem, as above)", newText(&c.TLSCert, "")},
		{"tlskey", "", "tlskey", "TLS key (default key.pem, as above)", newText(&c.TLSKey, "")},
		{"experimental", "", "experimental", "Say in answers that experimental features are on", &boolean{to: &c.Experimental}},
		{"label", "", "labels", "Label of this engine, key=value; may be repeated", &list{to: &c.Labels, check: checkLabel}},
		{"live-restore", "", "live-restore", "Accepted for dockerd's sake: containers always outlive the engine", &fixed{accepts: "true", flag: true, why: "containers always outlive the engine; stop them with 'berth system shutdown'"}},
		{"storage-driver", "s", "storage-driver", `Storage driver; only "overlay2"`, &fixed{accepts: "overlay2", why: "the only storage driver is overlay2"}},

		{"init", "", "init", "Run an init in every container that reaps processes and forwards signals", &boolean{to: &c.Init}},
		{"default-ulimit", "", "default-ulimits", "Default ulimit of containers, name=soft[:hard]; may be repeated", &ulimits{to: &c.DefaultUlimits}},
		{"default-shm-size", "", "default-shm-size", "Default size of /dev/shm", newSize(&c.DefaultShmSize, defaultShmSize)},
		{"default-ipc-mode", "", "default-ipc-mode", `Default IPC namespace of containers: "private", "shareable"`, newText(&c.DefaultIPCMode, "private", "private", "shareable")},
		{"default-cgroupns-mode", "", "default-cgroupns-mode", `Default cgroup namespace of containers: "private", "host" (default private on cgroup v2, host on v1)`, newText(&c.DefaultCgroupNS, "", "", "private", "host")},
		{"cgroup-parent", "", "cgroup-parent", "Parent cgroup of all containers (default /berth; with systemd and cgroup v2 that of berth-containers.service)", newText(&c.CgroupParent, "")},
		{"exec-opt", "", "exec-opts", "native.cgroupdriver=cgroupfs or systemd", newExecOpts(&c.CgroupDriver)},
		{"seccomp-profile", "", "seccomp-profile", `Seccomp profile of containers: a file, "builtin", or "unconfined"`, newText(&c.SeccompProfile, "")},
		{"selinux-enabled", "", "selinux-enabled", "Label containers for SELinux", &boolean{to: &c.SELinux}},
		{"no-new-privileges", "", "no-new-privileges", "Set no-new-privileges for new containers by default", &boolean{to: &c.NoNewPrivileges}},
		{"dns", "", "dns", "Name server for containers; may be repeated", &list{to: &c.DNS, check: checkAddress}},
		{"dns-search", "", "dns-search", "Search domain for containers; may be repeated", &list{to: &c.DNSSearch}},
		{"dns-opt", "", "dns-opts", "Resolver option for containers; may be repeated", &list{to: &c.DNSOptions}},
		{"authorization-plugin", "", "authorization-plugins", "Plugin that is asked whether a request may be carried out; may be repeated. One that does not answer lets nothing pass", &list{to: &c.AuthZ}},
		{"metrics-addr", "", "metrics-addr", "Address, HOST:PORT, at which Prometheus finds /metrics", newText(&c.Metrics, "")},
		{"shutdown-timeout", "", "shutdown-timeout", "Seconds to wait for containers when they are all to stop", newNumber(&c.ShutdownTimeout, 15)},

		{"rootless", "", "", "Accepted for dockerd's sake: an engine that an ordinary user starts is rootless, one that root starts is not", &boolean{to: new(bool)}},
		{"validate", "", "", "Check the configuration and exit", &boolean{to: &c.Validate}},
		{"version", "v", "", "Print the version and exit", &boolean{to: &c.Version}},
		{"help", "h", "", "Print this help and exit", &boolean{to: new(bool)}},
	}, slices.Concat(logOptions(c), networkOptions(&c.Net), transferOptions(&c.Image), fieldOptions(&c.Fields), removalFlags(&c.Removal), usernsFlags(&c.Userns), accessFlags(&c.Access), runtimeFlags(&c.Runtimes), buildOptions(&c.Build), missing())...)
}

// missing lists what dockerd has and this build refuses.
func missing() []option {
	var out []option
	refuse := func(why string, flag bool, names ...string) {
		for _, n := range names {
			name, key, plural := strings.Cut(n, "|")
			if !plural {
				key = name
			}
			out = append(out, option{name: name, key: key, value: &refusal{why: why, flag: flag}})
		}
	}
	refuse("the kernel alone carries published ports", false, "userland-proxy-path")
	refuse("the firewall is nftables", false, "firewall-backend", "bridge-accept-fwmark")
	refuse(noSwarm, false, "network-control-plane-mtu", "network-diagnostic-port")
	refuse("host-gateway is the gateway of the container's own network", false, "host-gateway-ip|host-gateway-ips")
	refuse("Berth never changes the policy of the host's FORWARD chain", true, "ip-forward-no-drop")
	refuse(noContainerd, false, "containerd")
	for _, n := range []string{"containerd-namespace", "containerd-plugins-namespace"} {
		out = append(out, option{name: n, key: n, help: "Accepted and without effect: Berth has no containerd", value: &unused{}}) // names in a containerd that nobody was told to use: test suites give them always
	}
	refuse(noContainerd, true, "cri-containerd")
	refuse(noSwarm, false, "swarm-default-advertise-addr", "node-generic-resource|node-generic-resources")
	refuse("the init that --init runs is built in", false, "init-path")
	refuse("features are set in daemon.json", false, "feature")
	refuse("there is no NRI in this build", false, "nri-opts")
	refuse("the engine's log has no colours", true, "raw-logs")
	refuse("dockerd itself has dropped it; use a restart policy", true, "restart")
	// Only in daemon.json.
	for key, why := range map[string]string{
		"allow-nondistributable-artifacts": "layers that may not be passed on never are",
		"min-api-version":                  "the oldest API version served is always 1.24",
	} {
		out = append(out, option{key: key, value: &refusal{why: why}})
	}
	return out
}

// applyFile reads daemon.json into the options. changed tells which flags were given.
func applyFile(data []byte, options []option, changed func(flag string) bool) error {
	fields, err := objectFields(data)
	if err != nil {
		return err
	}
	byKey := map[string]option{}
	for _, o := range options {
		if o.key != "" {
			byKey[o.key] = o
		}
	}
	var unknown, conflicts []string
	for _, f := range fields {
		o, ok := byKey[f.name]
		switch {
		case !ok:
			unknown = append(unknown, f.name)
		case o.name != "" && changed(o.name):
			conflicts = append(conflicts, fmt.Sprintf("%s: (from flag: %s, from file: %s)", f.name, o.value, jsonText(f.value)))
		}
	}
	sort.Strings(unknown)
	sort.Strings(conflicts)
	if len(unknown) > 0 {
		return fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	if len(conflicts) > 0 {
		return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(conflicts, ", "))
	}
	for _, f := range fields {
		if err := byKey[f.name].value.setJSON(f.value); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

type field struct {
	name  string
	value json.RawMessage
}

// objectFields splits one JSON object into its fields. A name that comes twice is refused: which one counts would be a guess.
func objectFields(data []byte) ([]field, error) {
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if len(data) == 0 {
		return nil, nil // as dockerd: an empty file says nothing
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		return nil, err
	}
	var fields []field
	dec := json.NewDecoder(bytes.NewReader(data))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, errors.New("the file holds no JSON object")
	}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		f := field{name: tok.(string)} // json.Unmarshal accepted the text: names are strings
		if slices.ContainsFunc(fields, func(o field) bool { return o.name == f.name }) {
			return nil, fmt.Errorf("%s is there twice", f.name)
		}
		if err := dec.Decode(&f.value); err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	return fields, nil
}

func jsonText(raw json.RawMessage) string {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return string(raw)
	}
	return fmt.Sprint(v)
}

func checkHost(s string) error {
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case !ok:
		return fmt.Errorf("%q has no scheme: write unix:///PATH, tcp://HOST:PORT or fd://", s)
	case scheme == "unix" && !strings.HasPrefix(rest, "/"):
		return fmt.Errorf("%q: the path of a unix socket must be absolute", s)
	case scheme != "unix" && scheme != "tcp" && scheme != "fd":
		return fmt.Errorf("invalid bind address (%s): unsupported proto '%s'", s, scheme)
	}
	return nil
}

func checkLabel(s string) error {
	if k, _, ok := strings.Cut(s, "="); !ok || k == "" {
		return fmt.Errorf("bad attribute format: %s", s)
	}
	return nil
}

func checkAddress(s string) error {
	if _, err := netip.ParseAddr(s); err != nil {
		return fmt.Errorf("%s is not an ip address", s)
	}
	return nil
}
