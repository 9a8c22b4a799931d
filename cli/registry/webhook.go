package registry

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"berth/base/fault"
)

// webhook is an endpoint as the registry shows it.
type webhook struct {
	Name         string
	URL          string
	Disabled     bool
	Repositories []string
	Status       struct {
		Pending   int
		Delivered uint64
		Failures  int
		Dropped   uint64
		LastError string    `json:"last_error"`
		LastTold  time.Time `json:"last_told"`
	}
}

func (s *site) webhook() *cobra.Command {
	list := verb("ls", "List who is told of what happens", "  berth registry webhook ls", cli.NoArgs, func(cmd *cobra.Command, _ []string) error {
		var all []webhook
		return s.show(cmd.Context(), http.MethodGet, "/webhooks", "", &all, func() error {
			rows := [][]string{{"NAME", "URL", "REPOSITORIES", "TOLD", "WAITING", "DROPPED", "STATE"}}
			for _, w := range all {
				about := joined(w.Repositories)
				if about == "" {
					about = "all"
				}
				rows = append(rows, []string{w.Name, w.URL, about, fmt.Sprint(w.Status.Delivered), fmt.Sprint(w.Status.Pending), fmt.Sprint(w.Status.Dropped), webhookState(&w)})
			}
			return s.table(rows)
		})
	})
	list.Aliases = []string{"list"}
	test := verb("test NAME", "Send one event of the kind ping, now", "  berth registry webhook test ci", cli.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		var answer struct{ Status int }
		if err := s.call(cmd.Context(), http.MethodPost, "/webhooks/"+url.PathEscape(args[0])+"/test", "", nil, &answer); err != nil {
			return err
		}
		fmt.Fprintf(s.d.Out(), "%s answered %d %s\n", args[0], answer.Status, http.StatusText(answer.Status))
		return nil
	})
	remove := verb("rm NAME...", "Tell them no longer; what waits for them is dropped", "  berth registry webhook rm ci", cli.RequiresMinArgs(1), func(cmd *cobra.Command, args []string) error {
		return s.each(args, func(name string) error {
			return s.call(cmd.Context(), http.MethodDelete, "/webhooks/"+url.PathEscape(name), "", nil, nil)
		})
	})
	return s.noun("webhook", "Tell others what happens, in Docker's notification format", list, s.webhookSet(), test, remove)
}

func webhookState(w *webhook) string {
	switch {
	case w.Disabled:
		return "disabled"
	case w.Status.Failures > 0:
		return fmt.Sprintf("failing (%d): %s", w.Status.Failures, w.Status.LastError)
	case !w.Status.LastTold.IsZero():
		return "told " + ago(w.Status.LastTold)
	}
	return "idle"
}

func (s *site) webhookSet() *cobra.Command {
	var headers, repositories, ignored []string
	var secret string
	var timeout, backoff time.Duration
	var threshold, queue int
	var disabled bool
	c := verb("set [OPTIONS] NAME URL", "Tell a URL what happens, or change how", "  berth registry webhook set ci https://ci.example/hook --repository 'team/*'\n  berth registry webhook set ci https://ci.example/hook \\\n      --secret-file secret --header 'X-Token: abc'", cli.ExactArgs(2),
		func(cmd *cobra.Command, args []string) error {
			in := map[string]any{"name": args[0], "url": args[1], "disabled": disabled, "repositories": append([]string{}, repositories...)}
			if len(ignored) > 0 {
				in["ignore"] = map[string]any{"actions": ignored}
			}
			for name, d := range map[string]time.Duration{"timeout": timeout, "backoff": backoff} {
				if d > 0 {
					in[name] = d.String()
				}
			}
			for name, n := range map[string]int{"threshold": threshold, "queue_limit": queue} {
				if n > 0 {
					in[name] = n
				}
			}
			if secret != "" {
				text, err := os.ReadFile(secret)
				if err != nil {
					return fault.Wrap(fault.Invalid, err, "--secret-file")
				}
				in["secret"] = strings.TrimRight(string(text), "\r\n")
			}
			if len(headers) > 0 {
				h := http.Header{}
				for _, line := range headers {
					name, value, ok := strings.Cut(line, ":")
					if !ok {
						return fault.New(fault.Invalid, "--header %q: write 'NAME: VALUE'", line)
					}
					h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
				}
				in["headers"] = h
			}
			if err := s.call(cmd.Context(), http.MethodPut, "/webhooks/"+url.PathEscape(args[0]), "", in, nil); err != nil {
				return err
			}
			return s.done(args[0])
		})
	c.Long = "Tell a URL what happens, or change how. What is not given is as for a new one: a secret and headers have to be given again."
	f := c.Flags()
	f.StringSliceVar(&repositories, "repository", nil, "Only of repositories like this (team/*, team/**); may be repeated (default all)")
	f.StringSliceVar(&ignored, "ignore", nil, "Not of these: push, pull, mount, delete; may be repeated")
	f.StringArrayVar(&headers, "header", nil, "Send this header, 'NAME: VALUE'; may be repeated")
	f.StringVar(&secret, "secret-file", "", "File with the key that requests are signed with")
	f.DurationVar(&timeout, "timeout", 0, "Of one request (default 5s)")
	f.DurationVar(&backoff, "backoff", 0, "For how long it is left alone when it fails (default 1s, then longer)")
	f.IntVar(&threshold, "threshold", 0, "Failures in a row before that (default 10)")
	f.IntVar(&queue, "queue", 0, "Events that wait for it at most (default 10000)")
	f.BoolVar(&disabled, "disabled", false, "Tell it nothing for now")
	return c
}
