package registry

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"berth/base/fault"
)

// retentionPlan is what of a plan is needed here: it prints itself at the registry.
type retentionPlan struct {
	ID           string
	Repositories []struct {
		Name          string
		Untag, Delete []json.RawMessage
		Frees         int64
	}
}

// does counts what the plan would do.
func (p *retentionPlan) does() (tags, manifests int, frees int64) {
	for _, r := range p.Repositories {
		tags, manifests, frees = tags+len(r.Untag), manifests+len(r.Delete), frees+r.Frees
	}
	return tags, manifests, frees
}

func (s *site) retention() *cobra.Command {
	show := verb("show", "Print the rules by which old images go", "  berth registry retention show >policy.json", cli.NoArgs, func(cmd *cobra.Command, _ []string) error {
		var raw json.RawMessage
		if err := s.call(cmd.Context(), http.MethodGet, "/retention", "", nil, &raw); err != nil {
			return err
		}
		return s.printJSON(raw)
	})
	set := verb("set FILE|-", "Replace the rules", "  berth registry retention set policy.json", cli.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		in := io.Reader(s.d.In())
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return fault.Wrap(fault.Invalid, err, "read the rules")
			}
			defer f.Close()
			in = f
		}
		text, err := io.ReadAll(in)
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "read the rules")
		}
		if !json.Valid(text) {
			return fault.New(fault.Invalid, "%s is no JSON", args[0])
		}
		return s.call(cmd.Context(), http.MethodPut, "/retention", "", json.RawMessage(text), nil)
	})
	set.Long = `Replace the rules by which old images go, a file of JSON:

  {"every": "24h", "rules": [
    {"name": "pull requests", "repositories": ["team/*"], "tags": ["pr-*"],
     "keep": {"younger": "168h"}},
    {"repositories": ["**"], "untagged": "24h",
     "keep": {"last": 10, "tags": ["v*", "latest"], "younger": "720h"}}]}

The first rule that fits a tag decides; a tag that none fits stays.`
	return s.noun("retention", "Take old images out by rules", show, set, s.retentionPlan(), s.retentionApply(), s.retentionRuns())
}

func (s *site) retentionPlan() *cobra.Command {
	var repository string
	var all bool
	c := verb("plan [OPTIONS]", "Say what would go, and why; nothing goes", "  berth registry retention plan\n  berth registry retention plan --repository 'team/*' --all", cli.NoArgs, func(cmd *cobra.Command, _ []string) error {
		plan, err := s.makePlan(cmd, repository)
		if err != nil {
			return err
		}
		if s.asJSON {
			return s.printJSON(plan)
		}
		var p retentionPlan
		if err := json.Unmarshal(plan, &p); err != nil {
			return fault.Wrap(fault.Internal, err, "understand the plan")
		}
		if err := s.printPlan(plan, all); err != nil {
			return err
		}
		if tags, manifests, _ := p.does(); tags+manifests > 0 {
			fmt.Fprintf(s.d.Out(), "\nTo do exactly this: berth registry retention apply %s\n", p.ID)
		}
		return nil
	})
	c.Flags().StringVar(&repository, "repository", "", "Only repositories like this")
	c.Flags().BoolVar(&all, "all", false, "Also what stays, and why")
	return c
}

// makePlan has the registry make a plan and keep it.
func (s *site) makePlan(cmd *cobra.Command, repository string) (json.RawMessage, error) {
	var plan json.RawMessage
	q := url.Values{}
	if repository != "" {
		q.Set("repository", repository)
	}
	return plan, s.call(cmd.Context(), http.MethodPost, "/retention/plan?"+q.Encode(), "", nil, &plan)
}

// printPlan prints a plan step by step.
func (s *site) printPlan(plan json.RawMessage, all bool) error {
	var p struct {
		Repositories []struct {
			Name                 string
			Untag, Delete, Stays []struct {
				Tag, Digest, Why string
				At               time.Time
			}
			Frees int64
		}
	}
	if err := json.Unmarshal(plan, &p); err != nil {
		return fault.Wrap(fault.Internal, err, "understand the plan")
	}
	steps := 0
	for _, r := range p.Repositories {
		rows := [][]string{}
		for _, x := range r.Untag {
			rows = append(rows, []string{"  untag", x.Tag, short(x.Digest), ago(x.At), x.Why})
		}
		for _, x := range r.Delete {
			rows = append(rows, []string{"  delete", "", short(x.Digest), ago(x.At), x.Why})
		}
		steps += len(rows)
		if all {
			for _, x := range r.Stays {
				rows = append(rows, []string{"  keep", x.Tag, short(x.Digest), ago(x.At), x.Why})
			}
		}
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(s.d.Out(), "%s%s\n", r.Name, mark(r.Frees > 0, ": frees up to "+units.HumanSize(float64(r.Frees))))
		if err := s.table(rows); err != nil {
			return err
		}
	}
	if steps == 0 {
		fmt.Fprintln(s.d.Out(), "Nothing would go.")
	}
	return nil
}

func (s *site) retentionApply() *cobra.Command {
	var yes bool
	var repository string
	c := verb("apply [OPTIONS] [PLAN]", "Do what a plan says, or make one, print it and ask", "  berth registry retention apply 3f9a11c2d4e5f607\n  berth registry retention apply --yes", cli.RequiresMaxArgs(1), func(cmd *cobra.Command, args []string) error {
		var id string
		if len(args) == 1 {
			id = args[0]
		} else {
			plan, err := s.makePlan(cmd, repository)
			if err != nil {
				return err
			}
			var p retentionPlan
			if err := json.Unmarshal(plan, &p); err != nil {
				return fault.Wrap(fault.Internal, err, "understand the plan")
			}
			if !s.asJSON {
				if err := s.printPlan(plan, false); err != nil {
					return err
				}
			}
			tags, manifests, _ := p.does()
			if tags+manifests == 0 {
				return nil
			}
			if !yes {
				if yes, err = s.confirm(fmt.Sprintf("\nTake %d tags and %d manifests out?", tags, manifests), "--yes"); err != nil || !yes {
					return err
				}
			}
			id = p.ID
		}
		var result json.RawMessage
		if err := s.call(cmd.Context(), http.MethodPost, "/retention/apply", "", map[string]string{"plan": id}, &result); err != nil {
			return err
		}
		if s.asJSON {
			return s.printJSON(result)
		}
		return s.printResult(result)
	})
	c.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask")
	c.Flags().StringVar(&repository, "repository", "", "Without a plan: only repositories like this")
	return c
}

// retentionResult is what a run did.
type retentionResult struct {
	ID       string
	Plan     string
	At       time.Time
	Untagged int
	Deleted  int
	Skipped  []struct{ Repository, Tag, Digest, Why string }
	Error    string
}

func (s *site) printResult(raw json.RawMessage) error {
	var r retentionResult
	if err := json.Unmarshal(raw, &r); err != nil {
		return fault.Wrap(fault.Internal, err, "understand the result")
	}
	fmt.Fprintf(s.d.Out(), "%d tags and %d manifests are gone", r.Untagged, r.Deleted)
	if len(r.Skipped) > 0 {
		fmt.Fprintf(s.d.Out(), ", %d that had changed meanwhile stayed", len(r.Skipped))
	}
	fmt.Fprintln(s.d.Out(), ". Their bytes go with the next collection.")
	for _, x := range r.Skipped {
		name := x.Tag
		if name == "" {
			name = short(x.Digest)
		}
		fmt.Fprintf(s.d.Out(), "  %s %s: %s\n", x.Repository, name, x.Why)
	}
	if r.Error != "" {
		return fault.New(fault.Internal, "the run was cut short: %s", r.Error)
	}
	return nil
}

func (s *site) retentionRuns() *cobra.Command {
	return verb("runs", "List the last runs", "  berth registry retention runs", cli.NoArgs, func(cmd *cobra.Command, _ []string) error {
		var all []retentionResult
		return s.show(cmd.Context(), http.MethodGet, "/retention/runs", "", &all, func() error {
			rows := [][]string{{"WHEN", "PLAN", "TAGS", "MANIFESTS", "STAYED", "ERROR"}}
			for _, r := range all {
				rows = append(rows, []string{ago(r.At), r.Plan, fmt.Sprint(r.Untagged), fmt.Sprint(r.Deleted), fmt.Sprint(len(r.Skipped)), r.Error})
			}
			return s.table(rows)
		})
	})
}

// short is enough of a digest to find it by.
func short(d string) string { return d[:min(len(d), 19)] }
