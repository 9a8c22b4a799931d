package ldap

import (
	"context"
	"errors"
	"strings"
	"time"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"berth/auth"
	"berth/base/fault"
)

// Directory asks a directory. It is an auth.Directory.
type Directory struct {
	config Config
	pool   *pool
}

// New prepares a directory; nothing is connected before it is asked. Errors are Invalid.
func New(c Config) (*Directory, error) {
	if err := c.prepare(); err != nil {
		return nil, err
	}
	d := &Directory{config: c}
	d.pool = &pool{config: &d.config, resting: map[string]time.Time{}}
	return d, nil
}

// Close closes the connections that are idle, and those in use when they are given back.
func (d *Directory) Close() error {
	d.pool.close()
	return nil
}

// Password binds with the password.
func (d *Directory) Password(ctx context.Context, name, password string) (auth.User, error) {
	if err := auth.Check(name, password); err != nil {
		return auth.User{}, err // an empty password among others
	}
	l, ours := d.config.parseLogin(name)
	if !ours {
		return auth.User{}, auth.ErrNoUser
	}
	if len(d.config.BindTemplates) > 0 {
		return d.direct(ctx, l, password)
	}
	var who auth.User
	err := d.pool.service(ctx, func(conn *ldapv3.Conn) error {
		e, err := d.entry(conn, l)
		if err == nil {
			err = d.bindUser(ctx, e.DN, password)
		}
		if err == nil {
			who, err = d.user(conn, l, e)
		}
		return err
	})
	return who, d.told(err, name)
}

// Lookup searches for the user with the service account.
func (d *Directory) Lookup(ctx context.Context, name string) (auth.User, error) {
	l, ours := d.config.parseLogin(name)
	if !ours || auth.Check(name, "x") != nil {
		return auth.User{}, auth.ErrNoUser
	}
	if d.config.UserBase == "" || d.config.BindDN == "" && len(d.config.BindTemplates) > 0 {
		return auth.User{}, fault.New(fault.NotImplemented, "directory %s has no account to look up users with: set bindDN", d.config.Name)
	}
	var who auth.User
	err := d.pool.service(ctx, func(conn *ldapv3.Conn) error {
		e, err := d.entry(conn, l)
		if err == nil {
			who, err = d.user(conn, l, e)
		}
		return err
	})
	return who, d.told(err, name)
}

// direct binds with the first template that the directory takes, and reads the entry with the user's own rights.
func (d *Directory) direct(ctx context.Context, l login, password string) (auth.User, error) {
	conn, err := d.pool.dial(ctx)
	if err != nil {
		return auth.User{}, err
	}
	defer conn.Close()
	for _, template := range d.config.BindTemplates {
		name, ok := bindName(template, l)
		if !ok {
			continue
		}
		err := within(ctx, conn, func() error { return bind(conn, name, password) })
		if errors.Is(err, auth.ErrPassword) {
			continue
		}
		if err != nil {
			return auth.User{}, unavailable(ctx, err)
		}
		var who auth.User
		err = within(ctx, conn, func() error {
			e, err := d.own(conn, l, template, name)
			if err == nil {
				who, err = d.user(conn, l, e)
			}
			return err
		})
		return who, d.told(err, l.whole)
	}
	// Whether the name is known cannot be told from a failed bind: it may be another directory's.
	return auth.User{}, auth.ErrNoUser
}

// own gives the entry of the user who is bound.
func (d *Directory) own(conn *ldapv3.Conn, l login, template, name string) (*ldapv3.Entry, error) {
	if strings.Contains(template, "=") {
		return d.one(conn, name, ldapv3.ScopeBaseObject, "(objectClass=*)")
	}
	if d.config.UserBase == "" {
		return ldapv3.NewEntry("", map[string][]string{d.config.UserAttribute: {l.user}}), nil
	}
	return d.entry(conn, l)
}

// bindUser checks a password on a connection of its own: the one that searches keeps its rights.
func (d *Directory) bindUser(ctx context.Context, dn, password string) error {
	conn, err := d.pool.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	err = within(ctx, conn, func() error { return bind(conn, dn, password) })
	if err != nil && !errors.Is(err, auth.ErrPassword) {
		return unavailable(ctx, err)
	}
	return err
}

// bind is ErrPassword when the server does not take the password, for whatever reason of the account's.
func bind(conn *ldapv3.Conn, name, password string) error {
	if name == "" || password == "" {
		return auth.ErrPassword // either would make it an anonymous bind, which succeeds
	}
	err := conn.Bind(name, password)
	var answer *ldapv3.Error
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.ResultCode {
	case ldapv3.LDAPResultInvalidCredentials, ldapv3.LDAPResultNoSuchObject, ldapv3.LDAPResultInvalidDNSyntax,
		ldapv3.LDAPResultInappropriateAuthentication, ldapv3.LDAPResultUnwillingToPerform, ldapv3.LDAPResultInsufficientAccessRights,
		ldapv3.LDAPResultConstraintViolation:
		return auth.ErrPassword
	}
	return err
}

// entry searches for a user's entry. None is ErrNoUser; several are refused, since one could sign in as another.
func (d *Directory) entry(conn *ldapv3.Conn, l login) (*ldapv3.Entry, error) {
	return d.one(conn, d.config.UserBase, ldapv3.ScopeWholeSubtree, expand(d.config.UserFilter, l.whole, l.user, ""))
}

func (d *Directory) one(conn *ldapv3.Conn, base string, scope int, filter string) (*ldapv3.Entry, error) {
	found, err := d.search(conn, base, scope, 2, filter, d.userAttributes())
	if err != nil {
		return nil, err
	}
	switch len(found) {
	case 0:
		return nil, auth.ErrNoUser
	case 1:
		return found[0], nil
	}
	if d.config.Log != nil {
		d.config.Log.Warn("a login names several entries of the directory and is refused", "directory", d.config.Name, "filter", filter, "first", found[0].DN, "second", found[1].DN)
	}
	return nil, auth.ErrPassword
}

// stamps are attributes that change with the password: of AD, of OpenLDAP's ppolicy, of Samba's and shadow's schemas.
var stamps = [...]string{"pwdLastSet", "pwdChangedTime", "sambaPwdLastSet", "shadowLastChange"}

func (d *Directory) userAttributes() []string {
	return append([]string{d.config.UserAttribute, "memberOf", "primaryGroupID", "objectSid"}, stamps[:]...)
}

// pageSize is the number of entries that are asked for at a time.
const pageSize = 500

// search gives the entries. References to other servers are left out, and no such base, or one elsewhere, holds nothing.
func (d *Directory) search(conn *ldapv3.Conn, base string, scope, limit int, filter string, attributes []string) ([]*ldapv3.Entry, error) {
	request := ldapv3.NewSearchRequest(base, scope, ldapv3.NeverDerefAliases, limit, d.config.Timeout, false, filter, attributes, nil)
	var r *ldapv3.SearchResult
	var err error
	if limit > 0 {
		r, err = conn.Search(request)
	} else {
		r, err = conn.SearchWithPaging(request, pageSize) // servers cut longer answers off: AD after 1000
	}
	if err == nil {
		return r.Entries, nil
	}
	if limit > 0 && ldapv3.IsErrorWithCode(err, ldapv3.LDAPResultSizeLimitExceeded) && r != nil {
		return r.Entries, nil
	}
	if ldapv3.IsErrorAnyOf(err, ldapv3.LDAPResultNoSuchObject, ldapv3.LDAPResultReferral) {
		return nil, nil
	}
	return nil, fault.In(err, "search %s", base)
}

// user makes a user of an entry.
func (d *Directory) user(conn *ldapv3.Conn, l login, e *ldapv3.Entry) (auth.User, error) {
	name := strings.ToLower(e.GetAttributeValue(d.config.UserAttribute))
	if auth.Check(name, "x") != nil {
		return auth.User{}, fault.Wrap(fault.Unauthorized, auth.ErrPassword, "entry %s has no %s that can be a name", e.DN, d.config.UserAttribute)
	}
	groups, err := d.groups(conn, name, e)
	if err != nil {
		return auth.User{}, err
	}
	who := auth.User{Name: name, Groups: groups, Source: "ldap", Admin: anyOf(groups, d.config.Admins)}
	for _, s := range stamps {
		if who.Stamp = e.GetAttributeValue(s); who.Stamp != "" {
			break
		}
	}
	if len(d.config.Require) > 0 && !anyOf(groups, d.config.Require) {
		return auth.User{}, fault.Wrap(fault.Unauthorized, auth.ErrPassword, "%s is in none of the groups that may sign in", name)
	}
	return who, nil
}

// told logs what the user is not told, and gives an error of the kinds that an auth.Directory answers with.
func (d *Directory) told(err error, name string) error {
	switch {
	case err == nil, errors.Is(err, auth.ErrNoUser):
		return err
	case errors.Is(err, auth.ErrPassword):
		if d.config.Log != nil && err.Error() != auth.ErrPassword.Error() {
			d.config.Log.Info("sign-in refused", "directory", d.config.Name, "login", name, "why", err)
		}
		return auth.ErrPassword
	case fault.Is(err, fault.Unavailable), fault.Is(err, fault.Cancelled), fault.Is(err, fault.Deadline):
		return err
	}
	return fault.Wrap(fault.Unavailable, err, "directory %s", d.config.Name)
}
