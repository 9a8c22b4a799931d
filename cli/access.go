package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"berth/base/fault"
	"berth/cli/table"
)

// accessPolicy is what an access socket allows, as POST /berth/v1/access takes it.
type accessPolicy struct {
	Name     string     `json:"name"`
	Verbs    []string   `json:"verbs,omitempty"`
	ReadOnly bool       `json:"readOnly,omitempty"`
	Label    string     `json:"label,omitempty"`
	Project  string     `json:"project,omitempty"`
	Allow    []string   `json:"allow,omitempty"`
	Binds    []string   `json:"binds,omitempty"`
	NoBind   bool       `json:"noBind,omitempty"`
	HideEnv  bool       `json:"hideEnv,omitempty"`
	Created  *time.Time `json:"created,omitempty"`
	Expires  *time.Time `json:"expires,omitempty"`
	User     string     `json:"user,omitempty"`
	Group    string     `json:"group,omitempty"`
	Mode     string     `json:"mode,omitempty"`
}

// accessSocket is one as the engine tells of it.
type accessSocket struct {
	accessPolicy
	Path  string `json:"path"`
	Fixed bool   `json:"fixed,omitempty"`
	Error string `json:"error,omitempty"`
}

func newAccess(d *command.DockerCli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "access",
		Short: "Manage sockets that allow less than everything",
		Long: "Who may use the engine's socket may do everything on this machine. An access socket is another one, for a program that needs\n" +
			"less: only certain verbs, only the things of one label or compose project, until some time. What is done on it is written down.",
		Args:                  cli.NoArgs,
		RunE:                  command.ShowHelp(d.Err()),
		DisableFlagsInUseLine: true,
	}
	cmd.AddCommand(newAccessCreate(d), newAccessList(d), newAccessInspect(d), newAccessRemove(d), newAccessLog(d))
	return cmd
}

func newAccessCreate(d *command.DockerCli) *cobra.Command {
	var p accessPolicy
	var expires string
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NAME",
		Short: "Make a socket and print its path",
		Long: "Make a socket and print its path. It is there until it is removed or expires, whether the engine is restarted or not.\n\n" +
			"Verbs: read, logs, files, create, start, stop, exec, remove, image, build, admin.\n" +
			"With --label or --project, only what carries the label exists for the socket's clients, and what they make gets it.\n" +
			"Directories of the host, privileged containers, devices, the host's namespaces, more capabilities, other security options and\n" +
			"the engine's own socket are refused unless --allow names them: bind, privileged, device, host-namespace, cap-add, security-opt,\n" +
			"engine-socket, runtime, volume-driver, network-driver, cgroup-parent, log-driver, annotation.",
		Example: "  berth access create traefik --read-only --group www-data\n" +
			"  berth access create ci --project shop --expires 24h \\\n      --verbs read,logs,create,start,stop,remove,image\n" +
			"  berth access create backup --verbs read,files --label backup=yes --hide-env",
		Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.Name = args[0]
			if expires != "" {
				at, err := moment(expires, time.Now())
				if err != nil {
					return err
				}
				p.Expires = &at
			}
			var made accessSocket
			if err := newRemote(d.Client()).call(cmd.Context(), "berth access create", http.MethodPost, "/access", &p, &made); err != nil {
				return err
			}
			fmt.Fprintln(d.Out(), made.Path)
			return nil
		},
		DisableFlagsInUseLine: true,
	}
	f := cmd.Flags()
	f.BoolVar(&p.ReadOnly, "read-only", false, "Allow read and logs, nothing else")
	f.StringSliceVar(&p.Verbs, "verbs", nil, "What clients may do, separated by commas")
	f.StringVar(&p.Label, "label", "", "Only what carries this label exists: K=V, or K with any value")
	f.StringVar(&p.Project, "project", "", "Only what belongs to this compose project exists")
	f.StringSliceVar(&p.Allow, "allow", nil, "Allow what is refused otherwise; may be repeated")
	f.StringArrayVar(&p.Binds, "bind", nil, "Path of the host that may be mounted, exactly this one; may be repeated")
	f.BoolVar(&p.NoBind, "no-bind", false, "Allow no mounts of the host, as without --bind and --allow bind")
	f.BoolVar(&p.HideEnv, "hide-env", false, "Show the names of environment variables without their values")
	f.StringVar(&expires, "expires", "", "When the socket goes: a span (24h, 7d) or a moment (2026-12-31T23:59:00Z)")
	f.StringVar(&p.User, "user", "", "Owner of the socket (default the engine's)")
	f.StringVar(&p.Group, "group", "", "Group of the socket")
	f.StringVar(&p.Mode, "mode", "", "Permissions of the socket, octal (default 0660 with --group, else 0600)")
	return cmd
}

// moment reads a span from now on, days included, or a point in time.
func moment(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 36500 {
			return now.UTC().Truncate(time.Second).AddDate(0, 0, n), nil
		}
	}
	if span, err := time.ParseDuration(text); err == nil {
		if span <= 0 {
			return time.Time{}, fault.New(fault.Invalid, "--expires: %s is over already", text)
		}
		return now.UTC().Add(span), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fault.New(fault.Invalid, "--expires: %q is neither a span (24h, 7d) nor a moment (2026-12-31T23:59:00Z)", text)
	}
	return at.UTC(), nil
}

func newAccessList(d *command.DockerCli) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"},
		Short:   "List the sockets",
		Example: "  berth access ls",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all struct{ Sockets []accessSocket }
			if err := newRemote(d.Client()).call(cmd.Context(), "berth access ls", http.MethodGet, "/access", nil, &all); err != nil {
				return err
			}
			rows := [][]string{{"NAME", "ALLOWS", "SCOPE", "EXPIRES", "SOCKET"}}
			for i := range all.Sockets {
				s := &all.Sockets[i]
				path := s.Path
				if s.Error != "" {
					path = "none: " + s.Error
				}
				rows = append(rows, []string{s.Name, s.allows(), s.scope(), s.expires(), path})
			}
			table.Print(d.Out(), rows, 0)
			return nil
		},
		DisableFlagsInUseLine: true,
	}
}

func (p *accessPolicy) allows() string {
	words := strings.Join(p.Verbs, ",")
	if p.ReadOnly {
		words = "read,logs"
	}
	for _, a := range p.Allow {
		words += ",+" + a
	}
	for _, b := range p.Binds {
		words += ",+bind:" + b
	}
	return words
}

func (p *accessPolicy) scope() string {
	switch {
	case p.Project != "":
		return "project " + p.Project
	case p.Label != "":
		return "label " + p.Label
	}
	return "everything"
}

func (p *accessPolicy) expires() string {
	if p.Expires == nil {
		return "never"
	}
	return p.Expires.Local().Format("2006-01-02 15:04:05")
}

func newAccessInspect(d *command.DockerCli) *cobra.Command {
	return &cobra.Command{
		Use:     "inspect NAME",
		Short:   "Show what a socket allows",
		Example: "  berth access inspect traefik",
		Args:    cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var one accessSocket
			if err := newRemote(d.Client()).call(cmd.Context(), "berth access inspect", http.MethodGet, "/access/"+url.PathEscape(args[0]), nil, &one); err != nil {
				return err
			}
			out := json.NewEncoder(d.Out())
			out.SetIndent("", "    ")
			return out.Encode(one)
		},
		DisableFlagsInUseLine: true,
	}
}

func newAccessRemove(d *command.DockerCli) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME [NAME...]", Aliases: []string{"remove"},
		Short:   "Remove sockets; connections on them are cut",
		Example: "  berth access rm traefik",
		Args:    cli.RequiresMinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := newRemote(d.Client())
			for _, name := range args {
				if err := r.call(cmd.Context(), "berth access rm", http.MethodDelete, "/access/"+url.PathEscape(name), nil, nil); err != nil {
					return err
				}
				fmt.Fprintln(d.Out(), name)
			}
			return nil
		},
		DisableFlagsInUseLine: true,
	}
}

// accessEntry is one line of the audit log, as far as it is printed.
type accessEntry struct {
	Time     time.Time `json:"time"`
	Socket   string    `json:"socket"`
	Where    string    `json:"where"`
	UID      *uint32   `json:"uid"`
	PID      int32     `json:"pid"`
	User     string    `json:"user"`
	Remote   string    `json:"remote"`
	Method   string    `json:"method"`
	Path     string    `json:"path"`
	Begun    bool      `json:"begun"`
	Decision string    `json:"decision"`
	Status   int       `json:"status"`
	Reason   string    `json:"reason"`
	Took     int64     `json:"took_ms"`
}

func newAccessLog(d *command.DockerCli) *cobra.Command {
	var tail int
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "log [OPTIONS] [NAME]",
		Short:   "Show what was asked for on the sockets",
		Example: "  berth access log\n  berth access log --tail 20 traefik",
		Args:    cli.RequiresMaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{"tail": {strconv.Itoa(tail)}}
			if len(args) == 1 {
				query.Set("name", args[0])
			}
			var all struct{ Entries []json.RawMessage }
			if err := newRemote(d.Client()).call(cmd.Context(), "berth access log", http.MethodGet, "/access/log?"+query.Encode(), nil, &all); err != nil {
				return err
			}
			rows := [][]string{{"TIME", "SOCKET", "WHO", "ANSWER", "REQUEST"}}
			for _, raw := range all.Entries {
				if asJSON {
					fmt.Fprintln(d.Out(), string(raw))
					continue
				}
				var e accessEntry
				if err := json.Unmarshal(raw, &e); err != nil {
					return fault.Wrap(fault.Internal, err, "understand the engine's answer")
				}
				rows = append(rows, e.row())
			}
			if !asJSON {
				table.Print(d.Out(), rows, 0)
			}
			return nil
		},
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().IntVarP(&tail, "tail", "n", 100, "Number of lines")
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print the lines as they are written down")
	return cmd
}

func (e *accessEntry) row() []string {
	socket, who := e.Socket, e.User
	if socket == "" {
		socket = e.Where
	}
	switch {
	case who != "":
	case e.UID != nil:
		who = fmt.Sprintf("uid %d pid %d", *e.UID, e.PID)
	default:
		who = e.Remote
	}
	answer := fmt.Sprintf("%s %d", e.Decision, e.Status)
	if e.Begun {
		answer = e.Decision + " …"
	}
	what := e.Method + " " + e.Path
	if e.Reason != "" {
		what += ": " + e.Reason
	}
	row := []string{e.Time.Local().Format("2006-01-02 15:04:05"), socket, who, answer, what}
	for i := range row {
		row[i] = withoutControls(row[i])
	}
	return row
}

// withoutControls gives a stranger's text as a terminal may have it.
func withoutControls(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}
