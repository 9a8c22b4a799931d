package registry

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"berth/base/fault"
)

func (s *site) access() *cobra.Command {
	return s.noun("access", "Say who may do what, and find out why", s.accessList(), s.accessGrant(), s.accessRevoke(), s.accessExplain(), s.accessSite())
}

// target is what rights are about: a repository, or with --org an organisation.
type target struct{ org bool }

func (t *target) flag(c *cobra.Command) {
	c.Flags().BoolVar(&t.org, "org", false, "The name is an organisation's: for all of its repositories")
}

// key is the target's name in queries and bodies.
func (t *target) key() string {
	if t.org {
		return "organisation"
	}
	return "repository"
}

// repository is the name where it is a repository's, for tokens.
func (t *target) repository(name string) string {
	if t.org {
		return ""
	}
	return name
}

func (s *site) accessList() *cobra.Command {
	var t target
	c := verb("ls [OPTIONS] NAME", "List who has a right on a repository", "  berth registry access ls team/web\n  berth registry access ls --org team", cli.ExactArgs(1),
		func(cmd *cobra.Command, args []string) error {
			var a struct {
				Visibility string
				Inherited  bool
				Grants     map[string]string
			}
			q := url.Values{t.key(): {args[0]}}
			return s.show(cmd.Context(), http.MethodGet, "/access?"+q.Encode(), t.repository(args[0]), &a, func() error {
				fmt.Fprintf(s.d.Out(), "%s is %s%s\n\n", args[0], a.Visibility, mark(a.Inherited, " (inherited)"))
				rows := [][]string{{"WHO", "ROLE", "MAY"}}
				for _, who := range sortedKeys(a.Grants) {
					rows = append(rows, []string{who, a.Grants[who], roleActions[a.Grants[who]]})
				}
				return s.table(rows)
			})
		})
	t.flag(c)
	return c
}

// roleActions says what roles are good for.
var roleActions = map[string]string{"reader": "pull", "writer": "pull, push", "maintainer": "pull, push, delete", "owner": "everything, also giving rights"}

func (s *site) accessGrant() *cobra.Command {
	var t target
	c := verb("grant [OPTIONS] NAME WHO ROLE", "Give somebody a role on a repository", "  berth registry access grant team/web bob writer\n  berth registry access grant --org team @dev maintainer\n  berth registry access grant team/web anyone reader", cli.ExactArgs(3),
		func(cmd *cobra.Command, args []string) error {
			in := map[string]string{t.key(): args[0], "to": args[1], "role": args[2]}
			if err := s.call(cmd.Context(), http.MethodPut, "/access", t.repository(args[0]), in, nil); err != nil {
				return err
			}
			return s.done(args[0])
		})
	c.Long = "Give somebody a role on a repository. WHO is a user, @GROUP, signed-in or anyone; ROLE is reader (pull), writer (push),\nmaintainer (delete) or owner."
	t.flag(c)
	return c
}

func (s *site) accessRevoke() *cobra.Command {
	var t target
	c := verb("revoke [OPTIONS] NAME WHO", "Take somebody's role on a repository", "  berth registry access revoke team/web bob", cli.ExactArgs(2),
		func(cmd *cobra.Command, args []string) error {
			q := url.Values{t.key(): {args[0]}, "to": {args[1]}}
			if err := s.call(cmd.Context(), http.MethodDelete, "/access?"+q.Encode(), t.repository(args[0]), nil, nil); err != nil {
				return err
			}
			return s.done(args[0])
		})
	t.flag(c)
	return c
}

func (s *site) accessExplain() *cobra.Command {
	var who, action string
	var groups []string
	c := verb("explain [OPTIONS] [USER] REPOSITORY [ACTION]", "Say whether somebody may do something, and why", "  berth registry access explain bob team/web push\n  berth registry access explain team/web               # a stranger's pull", cli.RequiresRangeArgs(1, 3),
		func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if len(args) > 1 {
				who, name = args[0], args[1]
			}
			if len(args) > 2 {
				action = args[2]
			}
			q := url.Values{"repository": {name}, "user": {who}, "action": {action}, "group": groups}
			var v struct {
				Allowed bool
				Why     string
				Lines   []string
			}
			return s.show(cmd.Context(), http.MethodGet, "/access/explain?"+q.Encode(), name, &v, func() error {
				subject, may := who, "may not"
				if subject == "" {
					subject = "a stranger"
				}
				if v.Allowed {
					may = "may"
				}
				fmt.Fprintf(s.d.Out(), "%s %s %s %s: %s\n", subject, may, action, name, v.Why)
				for _, l := range v.Lines {
					fmt.Fprintf(s.d.Out(), "  %s\n", l)
				}
				return nil
			})
		})
	c.Flags().StringVar(&who, "user", "", "Who; without it a stranger")
	c.Flags().StringVar(&action, "action", "pull", "What: pull, push, delete, admin")
	c.Flags().StringSliceVar(&groups, "group", nil, "As if the user were in this group too; may be repeated")
	return c
}

func (s *site) accessSite() *cobra.Command {
	var visibility, creation string
	var admins []string
	c := verb("site [OPTIONS]", "Show or change what holds for the whole registry", "  berth registry access site\n  berth registry access site --creation admins --visibility private", cli.NoArgs,
		func(cmd *cobra.Command, _ []string) error {
			change := map[string]any{}
			for name, v := range map[string]any{"visibility": visibility, "creation": creation, "admins": admins} {
				flag := strings.TrimSuffix(name, "s")
				if name == "admins" && cmd.Flags().Changed(flag) || name != "admins" && cmd.Flags().Changed(name) {
					change[name] = v
				}
			}
			if len(change) > 0 {
				if err := s.call(cmd.Context(), http.MethodPatch, "/access/site", "", change, nil); err != nil {
					return err
				}
			}
			var v struct {
				Visibility, Creation string
				Admins               []string
			}
			return s.show(cmd.Context(), http.MethodGet, "/access/site", "", &v, func() error {
				return s.table([][]string{{"REPOSITORIES ARE", "NEW ONES ARE MADE BY", "ADMINISTRATORS"}, {v.Visibility, v.Creation, joined(v.Admins)}})
			})
		})
	c.Flags().StringVar(&visibility, "visibility", "", "Of repositories for which nobody says: public, internal or private")
	c.Flags().StringVar(&creation, "creation", "", "Who may push to names in organisations that nobody has made: signed-in, own-name or admins")
	c.Flags().StringSliceVar(&admins, "admin", nil, "Who administrates the registry besides: users and @GROUPS; all of them are named; may be repeated")
	return c
}

// organisation as the registry shows it.
type organisation struct {
	Name, Description, Visibility string
	Grants                        map[string]string
	Created                       time.Time
}

func orgRows(all []organisation) [][]string {
	rows := [][]string{{"NAME", "VISIBILITY", "MEMBERS", "CREATED", "DESCRIPTION"}}
	for _, o := range all {
		visible := o.Visibility
		if visible == "" {
			visible = "(inherited)"
		}
		var members []string
		for _, who := range sortedKeys(o.Grants) {
			members = append(members, strings.TrimPrefix(who, "user:")+" ("+o.Grants[who]+")")
		}
		rows = append(rows, []string{o.Name, visible, joined(members), ago(o.Created), o.Description})
	}
	return rows
}

func (s *site) org() *cobra.Command {
	list := verb("ls", "List organisations that you are in", "  berth registry org ls", cli.NoArgs, func(cmd *cobra.Command, _ []string) error {
		var all []organisation
		return s.show(cmd.Context(), http.MethodGet, "/orgs", "", &all, func() error { return s.table(orgRows(all)) })
	})
	list.Aliases = []string{"list"}
	inspect := verb("inspect NAME", "Show an organisation", "  berth registry org inspect team", cli.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		var o organisation
		return s.show(cmd.Context(), http.MethodGet, "/orgs/"+url.PathEscape(args[0]), "", &o, func() error { return s.table(orgRows([]organisation{o})) })
	})
	remove := verb("rm NAME...", "Remove organisations; their repositories stay", "  berth registry org rm team", cli.RequiresMinArgs(1), func(cmd *cobra.Command, args []string) error {
		return s.each(args, func(name string) error {
			return s.call(cmd.Context(), http.MethodDelete, "/orgs/"+url.PathEscape(name), "", nil, nil)
		})
	})
	return s.noun("org", "Manage organisations: the first part of repositories' names", list, s.orgAdd(), inspect, s.orgUpdate(), remove)
}

func (s *site) orgAdd() *cobra.Command {
	var description, visibility string
	var owners []string
	c := verb("add [OPTIONS] NAME", "Make an organisation", "  berth registry org add team --owner ann --owner @leads --visibility internal", cli.ExactArgs(1),
		func(cmd *cobra.Command, args []string) error {
			in := map[string]any{"name": args[0], "description": description, "visibility": visibility, "owners": append([]string{}, owners...)}
			if err := s.call(cmd.Context(), http.MethodPost, "/orgs", "", in, nil); err != nil {
				return err
			}
			return s.done(args[0])
		})
	c.Flags().StringVar(&description, "description", "", "What it is for")
	c.Flags().StringVar(&visibility, "visibility", "", "Of its repositories for which nobody says: public, internal, private (default the site's)")
	c.Flags().StringSliceVar(&owners, "owner", nil, "User or @GROUP that owns it; may be repeated")
	return c
}

func (s *site) orgUpdate() *cobra.Command {
	var description, visibility string
	c := verb("update [OPTIONS] NAME", "Change an organisation", "  berth registry org update team --visibility public", cli.ExactArgs(1),
		func(cmd *cobra.Command, args []string) error {
			change := map[string]any{}
			if cmd.Flags().Changed("description") {
				change["description"] = description
			}
			if cmd.Flags().Changed("visibility") {
				change["visibility"] = visibility
			}
			if len(change) == 0 {
				return fault.New(fault.Invalid, "say what to change: --description, --visibility")
			}
			if err := s.call(cmd.Context(), http.MethodPatch, "/orgs/"+url.PathEscape(args[0]), "", change, nil); err != nil {
				return err
			}
			return s.done(args[0])
		})
	c.Flags().StringVar(&description, "description", "", "What it is for")
	c.Flags().StringVar(&visibility, "visibility", "", "Of its repositories for which nobody says: public, internal, private, inherit")
	return c
}
