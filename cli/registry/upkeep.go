package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"berth/base/fault"
	"berth/cli/progress"
)

// slow is call with a line on the terminal while it lasts.
func (s *site) slow(cmd *cobra.Command, text, method, path string, in, out any) error {
	wait := progress.Start(s.d.Err(), text)
	defer wait.Stop()
	return s.call(cmd.Context(), method, path, "", in, out)
}

func (s *site) gc() *cobra.Command {
	var plan bool
	var grace, untagged, uploads time.Duration
	c := verb("gc [OPTIONS]", "Free the room of what nothing names any more", "  berth registry gc --plan\n  berth registry gc\n  berth registry gc --untagged 168h", cli.NoArgs,
		func(cmd *cobra.Command, _ []string) error {
			in := map[string]any{"plan": plan}
			for name, d := range map[string]time.Duration{"grace": grace, "untagged": untagged, "uploads": uploads} {
				if cmd.Flags().Changed(name) {
					in[name] = d.String()
				}
			}
			var raw json.RawMessage
			if err := s.slow(cmd, "collecting garbage", http.MethodPost, "/gc", in, &raw); err != nil {
				return err
			}
			if s.asJSON {
				return s.printJSON(raw)
			}
			var done struct {
				Plan    string
				Removed *struct {
					Manifests, Links, Blobs, Uploads, Repositories, Spared int
					Bytes                                                  int64
				}
			}
			if err := json.Unmarshal(raw, &done); err != nil {
				return fault.Wrap(fault.Internal, err, "understand what was collected")
			}
			fmt.Fprint(s.d.Out(), done.Plan)
			if r := done.Removed; r != nil {
				fmt.Fprintf(s.d.Out(), "Removed: %d manifests, %d links, %d blobs, %d uploads, %d repositories; %s are free.\n", r.Manifests, r.Links, r.Blobs, r.Uploads, r.Repositories, units.HumanSize(float64(r.Bytes)))
				if r.Spared > 0 {
					fmt.Fprintf(s.d.Out(), "%d of the plan stayed: somebody wanted them meanwhile.\n", r.Spared)
				}
			}
			return nil
		})
	c.Long = "Free the room of what nothing names any more, while the registry serves. It does so by itself now and then; tags are taken\naway by retention rules."
	f := c.Flags()
	f.BoolVar(&plan, "plan", false, "Say what would go; nothing goes")
	f.DurationVar(&grace, "grace", 0, "Spare what is younger (default the registry's)")
	f.DurationVar(&untagged, "untagged", 0, "Also manifests that have had no tag for so long (default the registry's)")
	f.DurationVar(&uploads, "uploads", 0, "Uploads that nobody has gone on with for so long (default the registry's)")
	return c
}

func (s *site) check() *cobra.Command {
	var content, repair bool
	c := verb("check [OPTIONS]", "Verify that all that is named is there", "  berth registry check\n  berth registry check --content\n  berth registry check --content --repair", cli.NoArgs, func(cmd *cobra.Command, _ []string) error {
		how := map[string]bool{"content": content}
		if repair {
			how["repair"] = true
		}
		var raw json.RawMessage
		if err := s.slow(cmd, "verifying the registry", http.MethodPost, "/check", how, &raw); err != nil {
			return err
		}
		var found struct {
			Repositories, Tags, Manifests, Blobs int
			Bytes                                int64
			Problems                             []string
			Repaired                             int
		}
		if err := json.Unmarshal(raw, &found); err != nil {
			return fault.Wrap(fault.Internal, err, "understand what was found")
		}
		repaired := ""
		if repair {
			repaired = fmt.Sprintf(", %d repaired", found.Repaired)
		}
		if s.asJSON {
			if err := s.printJSON(raw); err != nil {
				return err
			}
		} else {
			for _, p := range found.Problems {
				fmt.Fprintln(s.d.Out(), p)
			}
			fmt.Fprintf(s.d.Out(), "%d repositories, %d tags, %d manifests, %d blobs (%s): %d problems%s\n", found.Repositories, found.Tags, found.Manifests, found.Blobs, units.HumanSize(float64(found.Bytes)), len(found.Problems), repaired)
		}
		if len(found.Problems) > found.Repaired {
			return cli.StatusError{StatusCode: 1}
		}
		return nil
	})
	c.Long = "Verify that all that is named is there. With --repair, content that has another digest than its name is removed: whoever pushes it\nnext is not told that it is there, and brings it again."
	c.Flags().BoolVar(&content, "content", false, "Read every byte and compare it with its digest")
	c.Flags().BoolVar(&repair, "repair", false, "Mend what can be mended, and take damaged content out")
	return c
}

// limits are the registry's quotas, in bytes; 0: none.
type limits struct {
	Repository    int64            `json:"repository,omitempty"`   // of every repository without one of its own
	Organisation  int64            `json:"organisation,omitempty"` // likewise
	Repositories  map[string]int64 `json:"repositories,omitempty"`
	Organisations map[string]int64 `json:"organisations,omitempty"`
}

func (s *site) quota() *cobra.Command {
	list := verb("ls", "List limits of room", "  berth registry quota ls", cli.NoArgs, func(cmd *cobra.Command, _ []string) error {
		var l limits
		return s.show(cmd.Context(), http.MethodGet, "/quota", "", &l, func() error {
			rows := [][]string{{"OF", "LIMIT"}}
			for _, one := range []struct {
				of string
				n  int64
			}{{"every repository", l.Repository}, {"every organisation", l.Organisation}} {
				if one.n > 0 {
					rows = append(rows, []string{one.of, size(one.n)})
				}
			}
			for _, name := range sortedKeys(l.Repositories) {
				rows = append(rows, []string{name, size(l.Repositories[name])})
			}
			for _, name := range sortedKeys(l.Organisations) {
				rows = append(rows, []string{name + "/", size(l.Organisations[name])})
			}
			return s.table(rows)
		})
	})
	return s.noun("quota", "Limit the room that repositories take", list, s.quotaSet(), s.quotaUsage())
}

func (s *site) quotaSet() *cobra.Command {
	var t target
	c := verb("set [OPTIONS] NAME|every SIZE|none", "Limit a repository, or every one that has no limit of its own", "  berth registry quota set team/web 10GB\n  berth registry quota set --org team 100GB\n  berth registry quota set every none", cli.ExactArgs(2),
		func(cmd *cobra.Command, args []string) error {
			var n int64
			if args[1] != "none" {
				var err error
				if n, err = units.FromHumanSize(args[1]); err != nil || n <= 0 {
					return fault.New(fault.Invalid, "%q is no size: 500MB, 10GB, none", args[1])
				}
			}
			var l limits
			if err := s.call(cmd.Context(), http.MethodGet, "/quota", "", nil, &l); err != nil {
				return err
			}
			l.set(args[0], t.org, n)
			if err := s.call(cmd.Context(), http.MethodPut, "/quota", "", l, nil); err != nil {
				return err
			}
			return s.done(args[0])
		})
	t.flag(c)
	return c
}

// set changes one limit; 0 takes it away.
func (l *limits) set(name string, org bool, n int64) {
	all, of := &l.Repository, &l.Repositories
	if org {
		all, of = &l.Organisation, &l.Organisations
	}
	if name == "every" {
		*all = n
		return
	}
	*of = maps.Clone(*of)
	if *of == nil {
		*of = map[string]int64{}
	}
	(*of)[name] = n
	if n == 0 {
		delete(*of, name)
	}
}

func (s *site) quotaUsage() *cobra.Command {
	var t target
	c := verb("usage [OPTIONS] NAME", "Show how much room a repository takes", "  berth registry quota usage team/web\n  berth registry quota usage --org team", cli.ExactArgs(1),
		func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if t.org {
				q.Set("organisation", "1")
			}
			var u struct{ Used, Limit int64 }
			return s.show(cmd.Context(), http.MethodGet, "/usage/"+escape(args[0])+"?"+q.Encode(), t.repository(args[0]), &u, func() error {
				limit, part := "none", ""
				if u.Limit > 0 {
					limit, part = size(u.Limit), fmt.Sprintf("%d%%", u.Used*100/u.Limit)
				}
				return s.table([][]string{{"NAME", "USED", "LIMIT", "PART"}, {args[0], units.HumanSize(float64(u.Used)), limit, part}})
			})
		})
	t.flag(c)
	return c
}
