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

// user is an account as the registry shows it.
type user struct {
	Name    string
	Admin   bool
	Closed  bool
	Created time.Time
	Changed time.Time // of the password
}

// userRows is a table of accounts.
func userRows(all []user) [][]string {
	rows := [][]string{{"NAME", "CREATED", "PASSWORD SET", "RIGHTS"}}
	for _, u := range all {
		rows = append(rows, []string{u.Name, ago(u.Created), ago(u.Changed), joined([]string{mark(u.Admin, "administrator"), mark(u.Closed, "closed")})})
	}
	return rows
}

func (s *site) user() *cobra.Command {
	list := verb("ls", "List users", "  berth registry user ls", cli.NoArgs, func(cmd *cobra.Command, _ []string) error {
		var all []user
		return s.show(cmd.Context(), http.MethodGet, "/users", "", &all, func() error { return s.table(userRows(all)) })
	})
	list.Aliases = []string{"list"}
	inspect := verb("inspect NAME", "Show a user", "  berth registry user inspect ann", cli.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		var u user
		return s.show(cmd.Context(), http.MethodGet, "/users/"+url.PathEscape(args[0]), "", &u, func() error { return s.table(userRows([]user{u})) })
	})
	signOut := verb("signout NAME", "End all logins of a user, what docker login stored too", "  berth registry user signout bob", cli.ExactArgs(1),
		func(cmd *cobra.Command, args []string) error {
			var ended struct{ Ended int }
			if err := s.call(cmd.Context(), http.MethodPost, "/users/"+url.PathEscape(args[0])+"/signout", "", nil, &ended); err != nil {
				return err
			}
			fmt.Fprintf(s.d.Out(), "%d logins of %s ended\n", ended.Ended, args[0])
			return nil
		})
	remove := verb("rm NAME...", "Remove users, their tokens, rights and memberships", "  berth registry user rm bob", cli.RequiresMinArgs(1),
		func(cmd *cobra.Command, args []string) error {
			return s.each(args, func(name string) error {
				return s.call(cmd.Context(), http.MethodDelete, "/users/"+url.PathEscape(name), "", nil, nil)
			})
		})
	return s.noun("user", "Manage users", list, s.userAdd(), inspect, s.userUpdate(), s.userPassword(), signOut, remove)
}

func (s *site) userAdd() *cobra.Command {
	var admin, stdin bool
	c := verb("add [OPTIONS] NAME", "Add a user", "  berth registry user add ann --admin\n  pwgen 20 1 | berth registry user add bob --password-stdin", cli.ExactArgs(1),
		func(cmd *cobra.Command, args []string) error {
			password, err := s.newPassword(cmd.Context(), args[0], stdin)
			if err != nil {
				return err
			}
			if err := s.call(cmd.Context(), http.MethodPost, "/users", "", map[string]any{"name": args[0], "password": password, "admin": admin}, nil); err != nil {
				return err
			}
			return s.done(args[0])
		})
	c.Long = "Add a user. The first one makes an end of a registry that is open to everybody, and has to be an administrator."
	c.Flags().BoolVar(&admin, "admin", false, "The user administrates the registry")
	c.Flags().BoolVar(&stdin, "password-stdin", false, "Read the password from standard input")
	return c
}

func (s *site) userUpdate() *cobra.Command {
	var admin, closed bool
	c := verb("update [OPTIONS] NAME", "Change what a user may do", "  berth registry user update bob --admin\n  berth registry user update bob --closed", cli.ExactArgs(1),
		func(cmd *cobra.Command, args []string) error {
			change := map[string]any{}
			if cmd.Flags().Changed("admin") {
				change["admin"] = admin
			}
			if cmd.Flags().Changed("closed") {
				change["closed"] = closed
			}
			if len(change) == 0 {
				return fault.New(fault.Invalid, "say what to change: --admin, --closed")
			}
			if err := s.call(cmd.Context(), http.MethodPatch, "/users/"+url.PathEscape(args[0]), "", change, nil); err != nil {
				return err
			}
			return s.done(args[0])
		})
	c.Flags().BoolVar(&admin, "admin", false, "The user administrates the registry, or with =false does not")
	c.Flags().BoolVar(&closed, "closed", false, "The user cannot sign in, or with =false can again")
	return c
}

func (s *site) userPassword() *cobra.Command {
	var stdin bool
	c := verb("passwd [OPTIONS] [NAME]", "Set a password: yours, or as an administrator anybody's", "  berth registry user passwd\n  berth registry user passwd bob --password-stdin <secret", cli.RequiresMaxArgs(1),
		func(cmd *cobra.Command, args []string) error {
			if err := s.open(cmd.Context()); err != nil {
				return err
			}
			name, change := s.cred.Username, map[string]any{}
			if len(args) == 1 {
				name = args[0]
			}
			if name == "" {
				return fault.New(fault.Invalid, "whose? Name the user, or log in: berth login %s", s.base.Host)
			}
			if name == s.cred.Username && s.cred.Password != "" {
				change["old"] = s.cred.Password
			} else if name == s.cred.Username && s.root == "" {
				old, err := s.ask(cmd.Context(), "Old password: ")
				if err != nil {
					return err
				}
				change["old"] = old
			}
			password, err := s.newPassword(cmd.Context(), name, stdin)
			if err != nil {
				return err
			}
			change["password"] = password
			if err := s.call(cmd.Context(), http.MethodPatch, "/users/"+url.PathEscape(name), "", change, nil); err != nil {
				return err
			}
			if name == s.cred.Username {
				fmt.Fprintf(s.d.Err(), "Log in again: berth login %s\n", s.base.Host)
			}
			return s.done(name)
		})
	c.Flags().BoolVar(&stdin, "password-stdin", false, "Read the new password from standard input")
	return c
}

func (s *site) group() *cobra.Command {
	list := verb("ls", "List the registry's own groups, not those of a directory", "  berth registry group ls", cli.NoArgs, func(cmd *cobra.Command, _ []string) error {
		all := map[string][]string{}
		return s.show(cmd.Context(), http.MethodGet, "/groups", "", &all, func() error {
			rows := [][]string{{"GROUP", "MEMBERS"}}
			for _, name := range sortedKeys(all) {
				rows = append(rows, []string{name, joined(all[name])})
			}
			return s.table(rows)
		})
	})
	set := verb("set NAME [USER...]", "Make a group, or give it other members", "  berth registry group set dev ann bob", cli.RequiresMinArgs(1), func(cmd *cobra.Command, args []string) error {
		members := append([]string{}, args[1:]...)
		if err := s.call(cmd.Context(), http.MethodPut, "/groups/"+url.PathEscape(args[0]), "", map[string]any{"members": members}, nil); err != nil {
			return err
		}
		return s.done(args[0])
	})
	remove := verb("rm NAME...", "Remove groups", "  berth registry group rm dev", cli.RequiresMinArgs(1), func(cmd *cobra.Command, args []string) error {
		return s.each(args, func(name string) error {
			return s.call(cmd.Context(), http.MethodDelete, "/groups/"+url.PathEscape(name), "", nil, nil)
		})
	})
	return s.noun("group", "Manage groups of users", list, set, remove)
}

// personalToken is `token`.
func (s *site) personalToken() *cobra.Command {
	var of string
	list := verb("ls [OPTIONS]", "List personal access tokens: yours, or all as administrator", "  berth registry token ls\n  berth registry token ls --user bob", cli.NoArgs,
		func(cmd *cobra.Command, _ []string) error {
			var all []struct {
				ID, User, Note   string
				Actions          []string
				Created, Expires time.Time
			}
			return s.show(cmd.Context(), http.MethodGet, "/tokens?"+url.Values{"user": {of}}.Encode(), "", &all, func() error {
				rows := [][]string{{"ID", "USER", "GOOD FOR", "CREATED", "EXPIRES", "NOTE"}}
				for _, t := range all {
					good, until := joined(t.Actions), "never"
					if good == "" {
						good = "all that " + t.User + " may"
					}
					if !t.Expires.IsZero() {
						until = t.Expires.Format(time.DateOnly)
					}
					rows = append(rows, []string{t.ID, t.User, good, ago(t.Created), until, t.Note})
				}
				return s.table(rows)
			})
		})
	list.Flags().StringVar(&of, "user", "", "Only this user's")
	remove := verb("rm ID...", "Revoke tokens", "  berth registry token rm 3f9a", cli.RequiresMinArgs(1), func(cmd *cobra.Command, args []string) error {
		return s.each(args, func(id string) error {
			return s.call(cmd.Context(), http.MethodDelete, "/tokens/"+url.PathEscape(id), "", nil, nil)
		})
	})
	return s.noun("token", "Manage personal access tokens", list, s.tokenAdd(), remove)
}

func (s *site) tokenAdd() *cobra.Command {
	var note string
	var actions []string
	var days int
	c := verb("add [OPTIONS]", "Make a token that is good in place of your password", "  berth registry token add --note ci --action pull,push --days 90\n  berth registry token add | berth login -u ann --password-stdin HOST", cli.NoArgs,
		func(cmd *cobra.Command, _ []string) error {
			var made struct{ ID, Token string }
			in := map[string]any{"note": note, "actions": append([]string{}, actions...), "days": days}
			if err := s.call(cmd.Context(), http.MethodPost, "/tokens", "", in, &made); err != nil {
				return err
			}
			fmt.Fprintf(s.d.Err(), "Token %s. It is shown this once:\n", made.ID)
			fmt.Fprintln(s.d.Out(), made.Token)
			return nil
		})
	c.Flags().StringVar(&note, "note", "", "What it is for")
	c.Flags().StringSliceVar(&actions, "action", nil, "What it is good for: pull, push, delete, admin; may be repeated (default all that you may)")
	c.Flags().IntVar(&days, "days", 90, "For how many days; 0: for ever")
	return c
}

// joined puts texts in a row, without the empty ones.
func joined(texts []string) string {
	var all []string
	for _, t := range texts {
		if t != "" {
			all = append(all, t)
		}
	}
	return strings.Join(all, ", ")
}
