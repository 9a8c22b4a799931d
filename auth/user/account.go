package user

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"berth/auth"
	"berth/auth/secret"
	"berth/base/fault"
)

// Account is a user whose password is kept here, without the password.
type Account struct {
	Name    string    `json:"name"`
	Admin   bool      `json:"admin,omitempty"`
	Closed  bool      `json:"closed,omitempty"` // may not sign in
	Created time.Time `json:"created"`
	Changed time.Time `json:"changed"` // of the password
}

// record is an account as it is kept.
type record struct {
	Account
	Hash string `json:"hash"` // bcrypt
}

// Add makes an account. A name that exists is a Conflict, one that cannot be a name Invalid.
func (s *Store) Add(name, password string, admin bool) (Account, error) {
	if err := CheckName(name); err != nil {
		return Account{}, err
	}
	hash, err := secret.Hash(password)
	if err != nil {
		return Account{}, err
	}
	now := time.Now().UTC()
	a := Account{Name: name, Admin: admin, Created: now, Changed: now}
	return a, s.db.Update(func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketAccount).Get([]byte(name)) != nil {
			return fault.New(fault.Conflict, "user %s exists already", name)
		}
		return put(tx, bucketAccount, []byte(name), record{a, hash})
	})
}

// Change is what is changed of an account; nil fields stay.
type Change struct {
	Password *string
	Admin    *bool
	Closed   *bool
}

// Change changes an account. Refresh tokens end with the password that they were given for, and when the account is closed.
func (s *Store) Change(name string, c Change) (Account, error) {
	var hash string
	if c.Password != nil {
		h, err := secret.Hash(*c.Password)
		if err != nil {
			return Account{}, err
		}
		hash = h
	}
	var a Account
	err := s.db.Update(func(tx *bbolt.Tx) error {
		r, ok, err := get[record](tx, bucketAccount, []byte(name))
		if err != nil {
			return err
		}
		if !ok {
			return noAccount(name)
		}
		if hash != "" {
			r.Hash, r.Changed = hash, time.Now().UTC()
		}
		if c.Admin != nil {
			r.Admin = *c.Admin
		}
		if c.Closed != nil {
			r.Closed = *c.Closed
		}
		a = r.Account
		if hash != "" || r.Closed {
			if err := dropRefresh(tx, name); err != nil {
				return err
			}
		}
		return put(tx, bucketAccount, []byte(name), r)
	})
	return a, err
}

// Remove removes an account with its tokens.
func (s *Store) Remove(name string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketAccount).Get([]byte(name)) == nil {
			return noAccount(name)
		}
		if err := dropRefresh(tx, name); err != nil {
			return err
		}
		if err := dropTokens(tx, name); err != nil {
			return err
		}
		return tx.Bucket(bucketAccount).Delete([]byte(name))
	})
}

// Account gives an account.
func (s *Store) Account(name string) (Account, error) {
	r, err := s.record(name)
	return r.Account, err
}

// Accounts gives all accounts by name.
func (s *Store) Accounts() ([]Account, error) {
	var all []Account
	err := s.db.View(func(tx *bbolt.Tx) error {
		return each(tx, bucketAccount, func(_ []byte, r record) error {
			all = append(all, r.Account)
			return nil
		})
	})
	return all, err
}

// Empty reports whether there is no account.
func (s *Store) Empty() (bool, error) {
	empty := true
	err := s.db.View(func(tx *bbolt.Tx) error {
		k, _ := tx.Bucket(bucketAccount).Cursor().First()
		empty = k == nil
		return nil
	})
	return empty, err
}

// Password checks an account's password.
func (s *Store) Password(ctx context.Context, name, password string) (auth.User, error) {
	if err := auth.Check(name, password); err != nil {
		return auth.User{}, err
	}
	r, err := s.record(name)
	if fault.Is(err, fault.NotFound) {
		if empty, err := s.Empty(); err != nil || empty {
			return auth.User{}, auth.ErrNoUser // nothing here that time could tell of
		}
		if err := secret.Waste(ctx, password, secret.Cheap); err != nil {
			return auth.User{}, err
		}
		return auth.User{}, auth.ErrNoUser
	}
	if err != nil {
		return auth.User{}, fault.Wrap(fault.Unavailable, err, "accounts")
	}
	ok, err := secret.Match(ctx, r.Hash, password)
	switch {
	case err != nil:
		return auth.User{}, err
	case !ok || r.Closed:
		return auth.User{}, auth.ErrPassword
	}
	return r.user(), nil
}

// Lookup gives what is known of a user without his password.
func (s *Store) Lookup(_ context.Context, name string) (auth.User, error) {
	r, err := s.record(name)
	switch {
	case fault.Is(err, fault.NotFound):
		return auth.User{}, auth.ErrNoUser
	case err != nil:
		return auth.User{}, fault.Wrap(fault.Unavailable, err, "accounts")
	case r.Closed:
		return auth.User{}, auth.ErrPassword // known here: no other source may answer for the name
	}
	return r.user(), nil
}

func (r record) user() auth.User {
	sum := sha256.Sum256([]byte(r.Hash))
	return auth.User{Name: r.Name, Admin: r.Admin, Source: "accounts", Stamp: hex.EncodeToString(sum[:8])}
}

func (s *Store) record(name string) (record, error) {
	var r record
	err := s.db.View(func(tx *bbolt.Tx) error {
		var ok bool
		var err error
		if r, ok, err = get[record](tx, bucketAccount, []byte(name)); err == nil && !ok {
			err = noAccount(name)
		}
		return err
	})
	return r, err
}

func noAccount(name string) error { return fault.New(fault.NotFound, "no such user: %s", name) }

// CheckName refuses names that cannot be told apart from something else: they stand in principals (user:NAME), in the
// user information of basic authentication (no colon), and in URLs. Errors are Invalid.
func CheckName(name string) error {
	if len(name) == 0 || len(name) > 128 {
		return fault.New(fault.Invalid, "the name of a user has 1 to 128 letters")
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._@-+", r)) {
			return fault.New(fault.Invalid, "%q cannot be the name of a user: letters and digits, and . _ @ - + after the first", name)
		}
	}
	return nil
}
