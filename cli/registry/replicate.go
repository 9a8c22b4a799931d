package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"berth/base/fault"
)

// replication is a rule and how it does.
type replication struct {
	Name, Registry, Prefix string
	Repositories, Tags     []string
	Deletes, Paused, Fixed bool
	Wait, Failed           int
	Status                 struct {
		Done, Sent, Tries int64
		LastDone          time.Time `json:"last_done"`
		LastError         string    `json:"last_error"`
		Compared          time.Time
	}
}

// replicationPlan is what a rule would do.
type replicationPlan struct {
	ID, Registry string
	Items        []struct {
		Action, Repository, Tag, Target, Digest, Before string
		Size                                            int64
	}
	Same     int
	Problems []string
}

func (s *site) replicate() *cobra.Command {
	list := verb("ls", "List what goes to which other registries", "  berth registry replicate ls", cli.NoArgs, func(cmd *cobra.Command, _ []string) error {
		var all []replication
		return s.show(cmd.Context(), http.MethodGet, "/replication", "", &all, func() error {
			rows := [][]string{{"NAME", "TO", "REPOSITORIES", "TAGS", "DONE", "SENT", "WAITING", "FAILED", "STATE"}}
			for _, r := range all {
				to, tags := r.Registry, joined(r.Tags)
				if r.Prefix != "" {
					to += "/" + r.Prefix
				}
				if tags == "" {
					tags = "all"
				}
				rows = append(rows, []string{r.Name, to, joined(r.Repositories), tags, fmt.Sprint(r.Status.Done), units.HumanSize(float64(r.Status.Sent)), fmt.Sprint(r.Wait), fmt.Sprint(r.Failed), replicationState(&r)})
			}
			return s.table(rows)
		})
	})
	list.Aliases = []string{"list"}
	remove := verb("rm NAME...", "Send them nothing any more; they keep what they have", "  berth registry replicate rm backup", cli.RequiresMinArgs(1), func(cmd *cobra.Command, args []string) error {
		return s.each(args, func(name string) error {
			return s.call(cmd.Context(), http.MethodDelete, replicationPath(name, ""), "", nil, nil)
		})
	})
	retry := verb("retry NAME", "Try again what has failed", "  berth registry replicate retry backup", cli.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		var n struct{ Jobs int }
		if err := s.call(cmd.Context(), http.MethodPost, replicationPath(args[0], "/retry"), "", nil, &n); err != nil {
			return err
		}
		fmt.Fprintf(s.d.Out(), "%d tried again\n", n.Jobs)
		return nil
	})
	return s.noun("replicate", "Keep copies of repositories at other registries", list, s.replicateSet(), s.replicateJobs(), s.replicatePlan(), s.replicateApply(), retry, remove)
}

func replicationPath(name, verb string) string { return "/replication/" + url.PathEscape(name) + verb }

func replicationState(r *replication) string {
	switch {
	case r.Paused:
		return "paused"
	case r.Status.LastError != "":
		return "failing: " + r.Status.LastError
	case !r.Status.LastDone.IsZero():
		return "sent " + ago(r.Status.LastDone)
	case !r.Status.Compared.IsZero():
		return "compared " + ago(r.Status.Compared)
	}
	return "idle"
}

func (s *site) replicateSet() *cobra.Command {
	var repositories, tags []string
	var prefix string
	var deletes, paused bool
	var every time.Duration
	var there elsewhere
	c := verb("set [OPTIONS] NAME REGISTRY", "Copy repositories to another registry, or change how", "  berth registry replicate set backup backup.example:5000 \\\n      --repository 'team/**' --every 24h\n  berth registry replicate set edge edge.example -u ann --password-stdin \\\n      --tag 'v*' <secret", cli.ExactArgs(2),
		func(cmd *cobra.Command, args []string) error {
			in := map[string]any{"name": args[0], "registry": args[1], "repositories": repositories, "deletes": deletes, "paused": paused}
			if len(tags) > 0 {
				in["tags"] = tags
			}
			if prefix != "" {
				in["prefix"] = prefix
			}
			if every > 0 {
				in["every"] = every.String()
			}
			if err := there.into(cmd, s, in); err != nil {
				return err
			}
			if err := s.call(cmd.Context(), http.MethodPut, replicationPath(args[0], ""), "", in, nil); err != nil {
				return err
			}
			return s.done(args[0])
		})
	c.Long = "Copy repositories to another registry after each push, and with --every also by comparing everything now and then."
	f := c.Flags()
	f.StringSliceVar(&repositories, "repository", []string{"**"}, "Repositories like this; may be repeated")
	f.StringSliceVar(&tags, "tag", nil, "Tags like this; may be repeated (default all)")
	f.StringVar(&prefix, "prefix", "", "Before the names there")
	f.BoolVar(&deletes, "deletes", false, "A tag that is deleted here is deleted there")
	f.BoolVar(&paused, "paused", false, "Send nothing for now")
	f.DurationVar(&every, "every", 0, "Compare everything so often (default only when it is asked for)")
	there.flags(c)
	return c
}

func (s *site) replicateJobs() *cobra.Command {
	return verb("jobs NAME", "List what waits and what has failed", "  berth registry replicate jobs backup", cli.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		var all []struct {
			Repository, Reference, Error string
			Delete, Failed               bool
			Next                         time.Time
			Tries                        int
		}
		return s.show(cmd.Context(), http.MethodGet, replicationPath(args[0], "/jobs"), "", &all, func() error {
			rows := [][]string{{"WHAT", "REPOSITORY", "TAG", "TRIES", "NEXT", "ERROR"}}
			for _, j := range all {
				what, next := "send", "now"
				if j.Delete {
					what = "delete"
				}
				if wait := time.Until(j.Next); wait > time.Second {
					next = "in " + units.HumanDuration(wait)
				}
				if j.Failed {
					next = "given up"
				}
				rows = append(rows, []string{what, j.Repository, short(j.Reference), fmt.Sprint(j.Tries), next, j.Error})
			}
			return s.table(rows)
		})
	})
}

func (s *site) replicatePlan() *cobra.Command {
	return verb("plan NAME", "Compare everything, and say what would be sent; nothing is", "  berth registry replicate plan backup", cli.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		raw, p, err := s.comparePlan(cmd, args[0])
		if err != nil {
			return err
		}
		if s.asJSON {
			return s.printJSON(raw)
		}
		if err := s.printReplication(p); err != nil {
			return err
		}
		if len(p.Items) > 0 {
			fmt.Fprintf(s.d.Out(), "\nTo do exactly this: berth registry replicate apply %s %s\n", args[0], p.ID)
		}
		return nil
	})
}

func (s *site) comparePlan(cmd *cobra.Command, name string) (json.RawMessage, *replicationPlan, error) {
	var raw json.RawMessage
	if err := s.slow(cmd, "comparing", http.MethodPost, replicationPath(name, "/plan"), nil, &raw); err != nil {
		return nil, nil, err
	}
	p := &replicationPlan{}
	return raw, p, fault.Wrap(fault.Internal, json.Unmarshal(raw, p), "understand the plan")
}

func (s *site) printReplication(p *replicationPlan) error {
	for _, problem := range p.Problems {
		fmt.Fprintf(s.d.Err(), "%s\n", problem)
	}
	if len(p.Items) == 0 {
		fmt.Fprintf(s.d.Out(), "Nothing to do: %s has all %d tags.\n", p.Registry, p.Same)
		return nil
	}
	rows := [][]string{{"WHAT", "HERE", "THERE", "DIGEST", "SIZE"}}
	for _, i := range p.Items {
		rows = append(rows, []string{i.Action, i.Repository + ":" + i.Tag, i.Target, short(i.Digest), size(i.Size)})
	}
	if err := s.table(rows); err != nil {
		return err
	}
	fmt.Fprintf(s.d.Out(), "%d to do; %d are the same\n", len(p.Items), p.Same)
	return nil
}

func (s *site) replicateApply() *cobra.Command {
	var yes bool
	c := verb("apply [OPTIONS] NAME [PLAN]", "Do what a plan says; without one, make it, print it and ask", "  berth registry replicate apply backup\n  berth registry replicate apply backup 3f9a11c2d4e5f607", cli.RequiresRangeArgs(1, 2), func(cmd *cobra.Command, args []string) error {
		id := ""
		if len(args) == 2 {
			id = args[1]
		} else {
			_, p, err := s.comparePlan(cmd, args[0])
			if err != nil {
				return err
			}
			if !s.asJSON {
				if err := s.printReplication(p); err != nil {
					return err
				}
			}
			if len(p.Items) == 0 {
				return nil
			}
			if !yes {
				if yes, err = s.confirm(fmt.Sprintf("\nDo that at %s?", p.Registry), "--yes"); err != nil || !yes {
					return err
				}
			}
			id = p.ID
		}
		var raw json.RawMessage
		if err := s.slow(cmd, "applying", http.MethodPost, replicationPath(args[0], "/apply"), map[string]string{"plan": id}, &raw); err != nil {
			return err
		}
		if s.asJSON {
			return s.printJSON(raw)
		}
		var p replicationPlan
		if err := json.Unmarshal(raw, &p); err != nil {
			return fault.Wrap(fault.Internal, err, "understand the answer")
		}
		fmt.Fprintf(s.d.Out(), "%d begun; how they do: berth registry replicate jobs %s\n", len(p.Items), args[0])
		return nil
	})
	c.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask")
	return c
}
