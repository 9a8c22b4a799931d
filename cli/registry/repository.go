package registry

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"berth/base/fault"
)

// entry is what the catalog knows of a repository.
type entry struct {
	Name        string
	Short, Long string
	Official    bool
	Certified   string
	Stars       int
	Pulls       uint64
	Pushes      uint64
	LastPush    time.Time `json:"last_push"`
	Tags        []string
	Platforms   []string
	Kind        string
	Size        int64
}

func (s *site) repository() *cobra.Command {
	inspect := verb("inspect NAME", "Show what is known of a repository", "  berth registry repository inspect team/web", cli.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		var e entry
		return s.show(cmd.Context(), http.MethodGet, "/catalog/entry/"+escape(args[0]), args[0], &e, func() error { return s.printEntry(&e) })
	})
	star := verb("star NAME...", "Give repositories your star", "  berth registry repository star team/web", cli.RequiresMinArgs(1), s.stars(http.MethodPut))
	unstar := verb("unstar NAME...", "Take your star back", "  berth registry repository unstar team/web", cli.RequiresMinArgs(1), s.stars(http.MethodDelete))
	forget := verb("forget NAME...", "Forget descriptions, stars and counts; content stays", "  berth registry repository forget old/thing", cli.RequiresMinArgs(1), func(cmd *cobra.Command, args []string) error {
		return s.each(args, func(name string) error {
			return s.call(cmd.Context(), http.MethodDelete, "/catalog/entry/"+escape(name), name, nil, nil)
		})
	})
	return s.noun("repository", "See repositories, and say what they are", s.repositoryList(), inspect, s.describe(), star, unstar, s.visibility(), s.official(), forget)
}

func (s *site) repositoryList() *cobra.Command {
	var most, page int
	c := verb("ls [OPTIONS] [WORDS...]", "List repositories, or search for some", "  berth registry repository ls\n  berth registry repository ls java web", cobra.ArbitraryArgs,
		func(cmd *cobra.Command, args []string) error {
			q := url.Values{"q": {strings.Join(args, " ")}, "n": {strconv.Itoa(most)}, "page": {strconv.Itoa(page)}}
			var found struct {
				Total   int
				Entries []entry
			}
			return s.show(cmd.Context(), http.MethodGet, "/catalog?"+q.Encode(), "", &found, func() error {
				rows := [][]string{{"NAME", "TAGS", "SIZE", "PUSHED", "PULLS", "STARS", "MARKS", "DESCRIPTION"}}
				for _, e := range found.Entries {
					rows = append(rows, []string{e.Name, fewTags(e.Tags), size(e.Size), ago(e.LastPush), strconv.FormatUint(e.Pulls, 10), strconv.Itoa(e.Stars), marks(&e), e.Short})
				}
				if err := s.table(rows); err != nil {
					return err
				}
				if shown := (page-1)*most + len(found.Entries); shown < found.Total {
					fmt.Fprintf(s.d.Err(), "%d of %d; the next: --page %d\n", shown, found.Total, page+1)
				}
				return nil
			})
		})
	c.Aliases = []string{"list"}
	c.Flags().IntVarP(&most, "limit", "n", 50, "Show at most this many")
	c.Flags().IntVar(&page, "page", 1, "Which of several pages")
	return c
}

// fewTags names the newest tags.
func fewTags(tags []string) string {
	if len(tags) > 3 {
		return strings.Join(tags[:3], ", ") + fmt.Sprintf(" +%d", len(tags)-3)
	}
	return joined(tags)
}

func marks(e *entry) string {
	return joined([]string{mark(e.Official, "official"), mark(e.Certified != "", "certified")})
}

func size(n int64) string {
	if n == 0 {
		return ""
	}
	return units.HumanSize(float64(n))
}

func (s *site) printEntry(e *entry) error {
	out := s.d.Out()
	fmt.Fprintf(out, "%s%s\n", e.Name, mark(e.Short != "", ": "+e.Short))
	for _, l := range []struct{ name, text string }{
		{"marks", joined([]string{mark(e.Official, "official"), mark(e.Certified != "", "certified under "+e.Certified)})},
		{"kind", e.Kind},
		{"tags", joined(e.Tags)},
		{"platforms", joined(e.Platforms)},
		{"size", size(e.Size)},
		{"pushed", ago(e.LastPush)},
		{"counts", fmt.Sprintf("%d stars, %d pulls, %d pushes", e.Stars, e.Pulls, e.Pushes)},
	} {
		if l.text != "" {
			fmt.Fprintf(out, "  %-10s %s\n", l.name, l.text)
		}
	}
	if e.Long != "" {
		fmt.Fprintf(out, "\n%s\n", strings.TrimRight(e.Long, "\n"))
	}
	return nil
}

// stars gives or takes stars.
func (s *site) stars(method string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return s.each(args, func(name string) error {
			return s.call(cmd.Context(), method, "/catalog/star/"+escape(name), name, nil, nil)
		})
	}
}

func (s *site) describe() *cobra.Command {
	var file string
	c := verb("describe [OPTIONS] NAME [ONE-LINE]", "Say what a repository is", "  berth registry repository describe team/web 'The shop'\n  berth registry repository describe team/web 'The shop' --readme README.md", cli.RequiresRangeArgs(1, 2),
		func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if len(args) == 1 && file == "" {
				return fault.New(fault.Invalid, "say what it is: a line, and with --readme a text")
			}
			var was entry // what is not said stays
			if err := s.call(cmd.Context(), http.MethodGet, "/catalog/entry/"+escape(name), name, nil, &was); err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
			in := map[string]string{"short": was.Short, "long": was.Long}
			if len(args) == 2 {
				in["short"] = args[1]
			}
			if file != "" {
				text, err := os.ReadFile(file)
				if err != nil {
					return fault.Wrap(fault.Invalid, err, "--readme")
				}
				in["long"] = string(text)
			}
			if err := s.call(cmd.Context(), http.MethodPut, "/catalog/description/"+escape(name), name, in, nil); err != nil {
				return err
			}
			return s.done(name)
		})
	c.Flags().StringVar(&file, "readme", "", "File with the text in Markdown")
	return c
}

func (s *site) visibility() *cobra.Command {
	return verb("visibility NAME public|internal|private|inherit", "Say who may pull without a right of his own", "  berth registry repository visibility team/web public", cli.ExactArgs(2),
		func(cmd *cobra.Command, args []string) error {
			in := map[string]string{"repository": args[0], "visibility": args[1]}
			if err := s.call(cmd.Context(), http.MethodPut, "/access/visibility", args[0], in, nil); err != nil {
				return err
			}
			return s.done(args[0])
		})
}

func (s *site) official() *cobra.Command {
	var off, byName bool
	c := verb("official [OPTIONS] NAME", "Mark a repository as official", "  berth registry repository official tomcat\n  berth registry repository official --off library/old", cli.ExactArgs(1),
		func(cmd *cobra.Command, args []string) error {
			in := map[string]any{"official": !off}
			if byName {
				in["official"] = nil
			}
			if err := s.call(cmd.Context(), http.MethodPut, "/catalog/mark/"+escape(args[0]), args[0], in, nil); err != nil {
				return err
			}
			return s.done(args[0])
		})
	c.Flags().BoolVar(&off, "off", false, "It is not official")
	c.Flags().BoolVar(&byName, "by-name", false, "As its name says: official is what lies under library/")
	c.MarkFlagsMutuallyExclusive("off", "by-name")
	return c
}
