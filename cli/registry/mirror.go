package registry

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"berth/base/fault"
)

// mirror is another registry that is asked for what is not here.
type mirror struct {
	Name, Registry, Prefix      string
	Only                        []string
	Fresh                       string
	Fixed                       bool
	Copies                      int
	Hits, Misses, Stale, Errors int64
	Bytes                       int64
	Failed                      time.Time
	Message                     string
}

func (s *site) mirror() *cobra.Command {
	list := verb("ls", "List the registries that are asked for what is not here", "  berth registry mirror ls", cli.NoArgs, func(cmd *cobra.Command, _ []string) error {
		var all []mirror
		return s.show(cmd.Context(), http.MethodGet, "/mirrors", "", &all, func() error {
			rows := [][]string{{"NAME", "REGISTRY", "HERE", "COPIES", "HITS", "MISSES", "STALE", "FETCHED", "STATE"}}
			for _, m := range all {
				here := "same names"
				if m.Prefix != "" {
					here = m.Prefix + "/…"
				}
				rows = append(rows, []string{m.Name, m.Registry, here, fmt.Sprint(m.Copies), fmt.Sprint(m.Hits), fmt.Sprint(m.Misses), fmt.Sprint(m.Stale), units.HumanSize(float64(m.Bytes)), mirrorState(&m)})
			}
			return s.table(rows)
		})
	})
	list.Aliases = []string{"list"}
	remove := verb("rm NAME...", "Ask them no longer; what was copied stays", "  berth registry mirror rm hub", cli.RequiresMinArgs(1), func(cmd *cobra.Command, args []string) error {
		return s.each(args, func(name string) error {
			return s.call(cmd.Context(), http.MethodDelete, "/mirrors/"+url.PathEscape(name), "", nil, nil)
		})
	})
	check := verb("check NAME", "Ask whether the other registry answers and takes the credentials", "  berth registry mirror check hub", cli.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		var a struct {
			Answers bool
			Message string
		}
		if err := s.slow(cmd, "asking", http.MethodPost, "/mirrors/"+url.PathEscape(args[0])+"/check", nil, &a); err != nil {
			return err
		}
		if !a.Answers {
			return fault.New(fault.Unavailable, "%s: %s", args[0], a.Message)
		}
		fmt.Fprintf(s.d.Out(), "%s answers\n", args[0])
		return nil
	})
	return s.noun("mirror", "Fetch from other registries what is not here, and keep it", list, s.mirrorSet(), check, remove)
}

func mirrorState(m *mirror) string {
	switch {
	case !m.Failed.IsZero():
		return "failed " + ago(m.Failed) + ": " + m.Message
	case m.Fixed:
		return "from the settings"
	}
	return ""
}

// elsewhere are the flags about another registry and who we are there.
type elsewhere struct {
	insecure bool
	username string
	stdin    bool
}

func (e *elsewhere) flags(c *cobra.Command) {
	c.Flags().BoolVar(&e.insecure, "plain", false, "Plain HTTP, or a certificate that nobody knows, will do")
	c.Flags().StringVarP(&e.username, "username", "u", "", "Who the registry is there")
	c.Flags().BoolVar(&e.stdin, "password-stdin", false, "Read the password from standard input; without it the old one stays")
}

// into puts them into a request.
func (e *elsewhere) into(cmd *cobra.Command, s *site, in map[string]any) error {
	in["insecure"] = e.insecure
	if e.username != "" {
		in["username"] = e.username
	}
	if e.stdin {
		password, err := s.newPassword(cmd.Context(), e.username, true)
		if err != nil {
			return err
		}
		in["password"] = password
	}
	return nil
}

func (s *site) mirrorSet() *cobra.Command {
	var prefix string
	var only []string
	var fresh time.Duration
	var there elsewhere
	c := verb("set [OPTIONS] NAME REGISTRY", "Ask another registry for what is not here, or change how", "  berth registry mirror set hub docker.io\n  berth registry mirror set quay quay.io --prefix quay --only 'prometheus/*'\n  echo $TOKEN | berth registry mirror set hub docker.io -u ann --password-stdin", cli.ExactArgs(2),
		func(cmd *cobra.Command, args []string) error {
			in := map[string]any{"name": args[0], "registry": args[1]}
			if prefix != "" {
				in["prefix"] = strings.Trim(prefix, "/")
			}
			if len(only) > 0 {
				in["only"] = only
			}
			if fresh > 0 {
				in["fresh"] = fresh.String()
			}
			if err := there.into(cmd, s, in); err != nil {
				return err
			}
			if err := s.call(cmd.Context(), http.MethodPut, "/mirrors/"+url.PathEscape(args[0]), "", in, nil); err != nil {
				return err
			}
			return s.done(args[0])
		})
	c.Long = "Ask another registry for what is not here, keep what it gives, and serve that when it fails. With a prefix (quay) its repository\nprometheus/node is quay/prometheus/node here; without one the names are the same, as mirrors of Docker Hub have it."
	f := c.Flags()
	f.StringVar(&prefix, "prefix", "", "Before the names here")
	f.StringSliceVar(&only, "only", nil, "Only repositories like this, there; may be repeated (default all)")
	f.DurationVar(&fresh, "fresh", 0, "How long an answer about a tag is believed (default 1m)")
	there.flags(c)
	return c
}
