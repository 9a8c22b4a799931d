package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"berth/base/fault"
	"berth/cli/table"
)

// New is `registry` with all below it. serve runs berthd with arguments.
func New(d *command.DockerCli, serve func(args []string) error) *cobra.Command {
	s := &site{d: d}
	c := &cobra.Command{
		Use:   "registry COMMAND",
		Short: "Serve a registry, and look after one",
		Long: "Serve a registry, and look after one: users and rights, descriptions, old images, mirrors, hooks. All but serve ask a\n" +
			"registry that runs, named by --url, " + envURL + ", or as the only one somebody has logged in to (berth login HOST).\n" +
			"Who you are is what that login says, or NAME:PASSWORD in " + envAuth + "; where it has left a token that is good for\n" +
			"images only, you are asked for your password.",
		Example: "  berth registry serve --addr :5000 --root /srv/registry\n" +
			"  berth registry --url localhost:5000 user add --admin ann\n" +
			"  berth login localhost:5000\n" +
			"  berth registry access grant team/web bob writer\n" +
			"  berth registry retention plan",
		Args:                  cli.NoArgs,
		RunE:                  command.ShowHelp(d.Err()),
		DisableFlagsInUseLine: true,
	}
	f := c.PersistentFlags()
	f.StringVar(&s.url, "url", "", "Registry: HOST[:PORT] or a URL (default "+envURL+", else where you are logged in)")
	f.StringVar(&s.ca, "cacert", "", "File with the certificates that the registry's is signed with")
	f.BoolVar(&s.insecure, "insecure", false, "Do not check the registry's certificate")
	f.StringVar(&s.root, "root", "", "Directory of a registry on this machine: administrate it by its local key instead of a login")
	f.BoolVar(&s.asJSON, "json", false, "Print what the registry answered")
	c.AddCommand(newServe(serve), s.whoami(), s.user(), s.group(), s.org(), s.access(), s.personalToken(), s.repository(),
		s.retention(), s.gc(), s.check(), s.quota(), s.mirror(), s.replicate(), s.webhook())
	return c
}

// noun is a command that only has others below it.
func (s *site) noun(use, short string, below ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use + " COMMAND", Short: short, Args: cli.NoArgs, RunE: command.ShowHelp(s.d.Err()), DisableFlagsInUseLine: true}
	c.AddCommand(below...)
	return c
}

// verb is a command that does something.
func verb(use, short, example string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Example: example, Args: args, RunE: run, DisableFlagsInUseLine: true}
}

// show asks for something, decodes it into v, and prints it, or with --json the answer itself.
func (s *site) show(ctx context.Context, method, path, repository string, v any, print func() error) error {
	var raw json.RawMessage
	if err := s.call(ctx, method, path, repository, nil, &raw); err != nil {
		return err
	}
	if s.asJSON {
		return s.printJSON(raw)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fault.Wrap(fault.Internal, err, "understand the answer of %s", s.base.Host)
	}
	return print()
}

// printJSON prints what was answered, indented.
func (s *site) printJSON(raw json.RawMessage) error {
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "    "); err != nil {
		return fault.Wrap(fault.Internal, err, "understand the answer of %s", s.base.Host)
	}
	b.WriteByte('\n')
	_, err := s.d.Out().Write(b.Bytes())
	return err
}

// table prints rows as wide as the terminal is.
func (s *site) table(rows [][]string) error {
	_, width := s.d.Out().GetTtySize()
	table.Print(s.d.Out(), rows, int(width))
	return nil
}

// ago is a point in time as people say it; "" for none.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return units.HumanDuration(time.Since(t)) + " ago"
}

// mark is what stands in a column that says yes or nothing.
func mark(yes bool, text string) string {
	if yes {
		return text
	}
	return ""
}

// newServe runs berthd, which has the registry in it and reads the flags, --help too.
func newServe(serve func(args []string) error) *cobra.Command {
	return &cobra.Command{
		Use:                   "serve [OPTIONS]",
		Short:                 "Serve a registry",
		Long:                  "Serve a registry. This runs `berthd registry serve`, found beside berth or on PATH, which has the flags and their help.",
		Example:               "  berth registry serve --addr :5000 --root /srv/registry",
		DisableFlagParsing:    true,
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			return serve(append([]string{"registry", "serve"}, args...))
		},
	}
}

func (s *site) whoami() *cobra.Command {
	return verb("whoami", "Say who you are at the registry", "  berth registry whoami", cli.NoArgs, func(cmd *cobra.Command, _ []string) error {
		var me struct {
			Name    string
			Groups  []string
			Admin   bool
			Guarded bool
		}
		return s.show(cmd.Context(), http.MethodGet, "/whoami", "", &me, func() error {
			name := me.Name
			switch {
			case !me.Guarded:
				name = "(nobody: this registry has no users)"
			case name == "":
				name = "(nobody)"
			}
			rows := [][]string{{"REGISTRY", "USER", "GROUPS", "RIGHTS"}, {s.base.Host, name, joined(me.Groups), mark(me.Admin, "administrator")}}
			return s.table(rows)
		})
	})
}
