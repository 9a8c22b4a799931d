package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// Where things are when nothing is said. All of it can be moved, so that several engines live side by side.
const (
	defaultHost       = "unix:///run/berth/berth.sock"
	defaultDataRoot   = "/var/lib/berth"
	defaultExecRoot   = "/run/berth"
	defaultConfigFile = "/etc/berth/daemon.json"
	defaultShmSize    = 64 << 20
)

// config is what the command line and daemon.json ask of the engine, checked and with defaults filled in.
type config struct {
	Show     string // text to print instead of serving (help); "" to go on
	Version  bool   // print the version instead of serving
	Validate bool   // only check the configuration

	File map[string]string // what daemon.json says: compact JSON by key

	ID         string // 6 hex digits of sha256(data-root), "" for the default root
	Hosts      []string
	DataRoot   string
	ExecRoot   string
	Pidfile    string
	ConfigFile string
	Group      string // group that owns unix sockets

	Rootless  bool // an engine of an ordinary user, root of namespaces of his
	Debug     bool
	LogLevel  string // debug info warn error fatal
	LogFormat string // text json

	TLS          bool // serve tcp with TLS
	TLSVerify    bool // and ask clients for a certificate
	TLSInsecure  bool // plain tcp on any address was asked for by name (--tls=false)
	TLSCACert    string
	TLSCert      string
	TLSKey       string
	Experimental bool

	Labels          []string // of the engine, "key=value"
	Init            bool     // run a reaping init in every container
	LogDriver       string   // one of logs.Drivers
	LogOpts         map[string]string
	Logs            logConfig
	DefaultUlimits  []*units.Ulimit
	DefaultShmSize  int64  // bytes
	DefaultIPCMode  string // private or shareable
	DefaultCgroupNS string // private or host; "" private on cgroup v2, host on v1, as Docker
	CgroupParent    string // "" /berth or /berth-ID; see placeCgroups for hosts with systemd
	CgroupChosen    bool   // CgroupParent was given
	CgroupDriver    string // cgroupfs or systemd
	SeccompProfile  string // "" the built-in one, "unconfined", or a file
	SELinux         bool
	NoNewPrivileges bool
	Net             netOptions
	Image           imageOptions
	Fields          fieldConfig
	Removal         removalOptions
	Userns          usernsOptions
	DNS             []string
	DNSSearch       []string
	DNSOptions      []string
	Access          accessOptions
	Runtimes        runtimeOptions
	Build           buildConfig
	AuthZ           []string // plugins that are asked about each request, in their order
	Metrics         string   // HOST:PORT of /metrics; "" none
	ShutdownTimeout int      // seconds that stopping containers may take; -1 for ever
}

// Level gives the least severe level that is logged.
func (c config) Level() slog.Level {
	switch {
	case c.Debug || c.LogLevel == "debug":
		return slog.LevelDebug
	case c.LogLevel == "warn":
		return slog.LevelWarn
	case c.LogLevel == "error" || c.LogLevel == "fatal":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// parseFlags reads berthd's command line (without the program's name) and daemon.json. What was said in both places, is unknown,
// or is not in this build is refused by name.
func parseFlags(args []string) (config, error) {
	c := config{}
	options := table(&c)
	set := pflag.NewFlagSet("berthd", pflag.ContinueOnError)
	set.SortFlags = true
	set.Usage = func() {}
	for _, o := range options {
		if o.name == "" {
			continue
		}
		f := set.VarPF(o.value, o.name, o.short, o.help)
		f.Hidden = o.refused()
		if o.value.Type() == "bool" {
			f.NoOptDefVal = "true"
		}
	}
	if err := set.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return config{Show: help(set)}, nil
		}
		return c, fmt.Errorf("%w\nSee 'berthd --help'", err)
	}
	if set.NArg() > 0 {
		return c, fmt.Errorf("berthd takes no arguments: %q\nSee 'berthd --help'", set.Args())
	}
	if set.Changed("help") {
		return config{Show: help(set)}, nil
	}
	if c.Version {
		return c, nil
	}
	if err := mergeFile(&c, options, set); err != nil {
		return c, fmt.Errorf("unable to configure the Docker daemon with file %s: %w", c.ConfigFile, err)
	}
	return c, c.complete(set, options)
}

// mergeFile puts daemon.json under the flags. The file may be missing unless it was named.
func mergeFile(c *config, options []option, set *pflag.FlagSet) error {
	c.File = map[string]string{}
	data, err := os.ReadFile(c.ConfigFile)
	if errors.Is(err, fs.ErrNotExist) && !set.Changed("config-file") {
		return nil
	}
	if err != nil {
		return err
	}
	if err := applyFile(data, options, set.Changed); err != nil {
		return err
	}
	fields, err := objectFields(data)
	for _, f := range fields {
		var b bytes.Buffer
		_ = json.Compact(&b, f.value) // it was read before
		c.File[f.name] = b.String()
	}
	return err
}

// complete fills in what depends on something else and checks values against each other.
func (c *config) complete(set *pflag.FlagSet, options []option) error {
	given := func(name string) bool {
		if set.Changed(name) {
			return true
		}
		for _, o := range options {
			if o.name == name {
				return o.value.given()
			}
		}
		return false
	}
	for _, dir := range []struct {
		name string
		path *string
	}{{"data-root", &c.DataRoot}, {"exec-root", &c.ExecRoot}} {
		if *dir.path == "" {
			return fmt.Errorf("--%s: a directory is needed", dir.name)
		}
		abs, err := filepath.Abs(*dir.path)
		if err != nil {
			return err
		}
		*dir.path = abs
	}
	if err := c.checkLogs(); err != nil {
		return err
	}
	if c.DataRoot != defaultPlaces().dataRoot {
		sum := sha256.Sum256([]byte(c.DataRoot))
		c.ID = hex.EncodeToString(sum[:])[:6]
	}
	if _, err := c.Runtimes.set(); err != nil {
		return err
	}
	if c.Net.MTU < 0 || c.Net.MTU > 65535 {
		return fmt.Errorf("invalid default MTU: %d", c.Net.MTU)
	}
	if err := c.Removal.check(); err != nil {
		return err
	}
	if len(c.Hosts) == 0 {
		c.Hosts = []string{defaultPlaces().host}
	}
	if c.Pidfile == "" {
		c.Pidfile = filepath.Join(c.ExecRoot, "berthd.pid")
	}
	if c.CgroupChosen = c.CgroupParent != ""; !c.CgroupChosen {
		c.CgroupParent = "/berth"
		if c.ID != "" {
			c.CgroupParent += "-" + c.ID
		}
	}
	// As in dockerd, saying --tlsverify at all turns TLS on; saying no to TLS allows plain tcp on any address.
	if given("tlsverify") {
		c.TLS = true
	}
	c.TLSInsecure = given("tls") && !c.TLS
	dir := os.Getenv("DOCKER_CERT_PATH")
	if dir == "" {
		dir = filepath.Dir(c.ConfigFile)
	}
	for file, path := range map[string]*string{"ca.pem": &c.TLSCACert, "cert.pem": &c.TLSCert, "key.pem": &c.TLSKey} {
		if c.TLS && *path == "" {
			*path = filepath.Join(dir, file)
		}
	}
	return nil
}

func help(set *pflag.FlagSet) string {
	return `Usage:  berthd [OPTIONS]

The Berth engine: runs containers and answers Docker's API.
It stops on SIGTERM and leaves its containers running; "berth system shutdown"
stops them too.

Options:
` + set.FlagUsagesWrapped(80) + `
Every option can also be set in ` + defaultConfigFile + ` under dockerd's name
for it (hosts, data-root, log-opts …), but not in both places. Options of
dockerd that this build does not have are refused by name.

Examples:
  # serve on ` + strings.TrimPrefix(defaultHost, "unix://") + `; as an ordinary user an engine without
  # root, see docs/rootless.md and berth system check
  berthd

  # a second engine beside the first
  berthd -H unix:///tmp/b.sock --data-root /tmp/b/data --exec-root /tmp/b/run

  # systemd's socket, and plain tcp on the loopback
  berthd -H fd:// -H tcp://127.0.0.1:2375

  # for clients with a certificate of this CA
  berthd -H tcp://0.0.0.0:2376 --tlsverify --tlscacert ca.pem \
    --tlscert cert.pem --tlskey key.pem

  # bounded logs for all containers
  berthd --log-opt max-size=10m --log-opt max-file=3

  # check a configuration
  berthd --validate --config-file ./daemon.json
`
}
