package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"berth/base/failpoint"
	"berth/registry"
)

// registryExamples stand below the flags in its help.
const registryExamples = `
Examples:
  # a registry for this machine, without users
  berth registry serve --root /var/lib/berth-registry

  # for a team: TLS, users in a file as htpasswd -B writes it
  berth registry serve --addr 0.0.0.0:443 --root /srv/registry \
    --tls-cert cert.pem --tls-key key.pem --htpasswd users

  # content in an S3 bucket, everything else in --root
  berth registry serve --root /srv/registry \
    --storage 's3://images/registry?region=eu-central-1'
`

// registryServe is `berthd registry serve`, which `berth registry serve` runs: the registry server, until SIGTERM. It gives the exit code.
func registryServe(args []string, out, errs io.Writer) int {
	cfg, show, err := registryFlags(args)
	switch {
	case err != nil:
		fmt.Fprintln(errs, err)
		return 1
	case show != "":
		fmt.Fprint(out, show)
		return 0
	}
	if err := failpoint.Arm(os.Getenv(failpoint.Env)); err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	unix.Umask(0o022)
	if err := serveRegistry(cfg, out); err != nil {
		cfg.Log.Error("the registry ends", "error", err)
		return 1
	}
	return 0
}

func serveRegistry(cfg registry.Config, out io.Writer) error {
	r, err := registry.Open(cfg)
	if err != nil {
		return err
	}
	l, err := r.Listener()
	if err != nil {
		return errors.Join(err, r.Close())
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	fmt.Fprintf(out, "berth registry %s serves on %s\n", version, l.Addr())
	notifySystemd(cfg.Log, "READY=1")
	err = r.Serve(ctx, l)
	notifySystemd(cfg.Log, "STOPPING=1")
	return errors.Join(err, r.Close())
}

// registryFlags reads the file that --config names, whose keys are the fields of registry.Config, and then the command line, which
// has the last word.
func registryFlags(args []string) (cfg registry.Config, show string, err error) {
	var file, level string
	first := pflag.NewFlagSet("config", pflag.ContinueOnError)
	first.ParseErrorsAllowlist.UnknownFlags = true
	first.Usage = func() {}
	first.StringVar(&file, "config", "", "")
	if err := first.Parse(args); err == nil && file != "" {
		if err := readRegistryConfig(file, &cfg); err != nil {
			return cfg, "", fmt.Errorf("--config %s: %w", file, err)
		}
	}
	set := pflag.NewFlagSet("berth registry serve", pflag.ContinueOnError)
	set.Usage = func() {}
	set.StringVar(&file, "config", "", "File with settings, JSON: the fields of docs/registry.md; flags have the last word")
	set.StringVar(&level, "log-level", "info", `Least severe messages to log: "debug", "info", "warn", "error"`)
	set.StringVar(&cfg.Addr, "addr", cmp.Or(cfg.Addr, "127.0.0.1:5000"), "Address to serve on, HOST:PORT")
	set.StringVar(&cfg.Root, "root", cfg.Root, "Directory of all that is the registry's own; made where it is missing")
	set.StringVar(&cfg.Storage, "storage", cfg.Storage, "Where the content lies: dir:PATH, or s3://BUCKET[/PREFIX]?endpoint=URL&region=NAME (default: below --root)")
	set.StringVar(&cfg.TLSCert, "tls-cert", cfg.TLSCert, "TLS certificate, PEM; read again when it changes")
	set.StringVar(&cfg.TLSKey, "tls-key", cfg.TLSKey, "TLS key, PEM")
	set.StringVar(&cfg.TLSCA, "tls-ca", cfg.TLSCA, "Ask clients for a certificate of one of these CAs")
	set.StringVar(&cfg.Htpasswd, "htpasswd", cfg.Htpasswd, "Users and their passwords, bcrypt, as htpasswd -B writes it; more users: berth registry user. Without users everybody may do everything")
	set.BoolVar(&cfg.ReadOnly, "read-only", cfg.ReadOnly, "Refuse everything that changes content")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return cfg, "Usage:  berth registry serve --root DIR [OPTIONS]\n\nServe images to others\n\nOptions:\n" + set.FlagUsagesWrapped(80) + registryExamples, nil
		}
		return cfg, "", fmt.Errorf("%w\nSee 'berth registry serve --help'", err)
	}
	switch {
	case set.NArg() > 0:
		return cfg, "", fmt.Errorf("berth registry serve takes no arguments: %q\nSee 'berth registry serve --help'", set.Args())
	case cfg.Root == "":
		return cfg, "", errors.New("--root is missing: where does the registry live?\nSee 'berth registry serve --help'")
	}
	cfg.Log, err = registryLog(level)
	return cfg, "", err
}

func readRegistryConfig(path string, into *registry.Config) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

func registryLog(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(strings.ToUpper(level))); err != nil {
		return nil, fmt.Errorf("--log-level %q: must be one of debug, info, warn, error", level)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})), nil
}
