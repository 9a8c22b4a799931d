package user

import (
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"berth/auth"
	"berth/auth/secret"
	"berth/base/fault"
)

// Prefix begins every personal token, so that a door knows one from a password, and a scanner finds one in a repository.
const Prefix = "berth_"

// tokensPerUser bounds the personal tokens, and the refresh tokens, of one user. Of refresh tokens the oldest goes.
const tokensPerUser = 200

// Token is a personal access token, without its secret.
type Token struct {
	ID      string    `json:"id"`
	User    string    `json:"user"`
	Note    string    `json:"note,omitempty"`    // what it is for
	Actions []string  `json:"actions,omitempty"` // what it is good for; none: all that its user may do
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
}

type tokenRecord struct {
	Token
	Fingerprint string `json:"fingerprint"`
}

// AddToken makes a personal token. The secret is not kept and cannot be shown again.
func (s *Store) AddToken(t Token) (Token, string, error) {
	text := Prefix + secret.Token()
	t.ID, t.Created = secret.ID(), time.Now().UTC()
	return t, text, s.db.Update(func(tx *bbolt.Tx) error {
		if n, err := countTokens(tx, t.User); err != nil || n >= tokensPerUser {
			if err == nil {
				err = fault.New(fault.Conflict, "user %s has %d tokens already: revoke some", t.User, n)
			}
			return err
		}
		print := secret.Fingerprint(text)
		if err := tx.Bucket(bucketSecret).Put([]byte(print), []byte(t.ID)); err != nil {
			return err
		}
		return put(tx, bucketToken, []byte(t.ID), tokenRecord{t, print})
	})
}

// CheckToken gives the personal token with the secret. Unknown and expired are Unauthorized. Whether the user still exists, and is
// the one who signs in with it, is for the caller to ask.
func (s *Store) CheckToken(text string) (Token, error) {
	if !strings.HasPrefix(text, Prefix) {
		return Token{}, auth.ErrPassword
	}
	var t tokenRecord
	err := s.db.View(func(tx *bbolt.Tx) error {
		id := tx.Bucket(bucketSecret).Get([]byte(secret.Fingerprint(text)))
		if id == nil {
			return auth.ErrPassword
		}
		var ok bool
		var err error
		if t, ok, err = get[tokenRecord](tx, bucketToken, id); err == nil && !ok {
			err = auth.ErrPassword
		}
		return err
	})
	if err == nil && t.over(time.Now()) {
		err = auth.ErrPassword
	}
	if err != nil {
		return Token{}, err
	}
	return t.Token, nil
}

// over reports whether the token has expired.
func (t Token) over(now time.Time) bool { return !t.Expires.IsZero() && now.After(t.Expires) }

// Token gives a personal token by its id. Unknown and expired are NotFound.
func (s *Store) Token(id string) (Token, error) {
	var t tokenRecord
	err := s.db.View(func(tx *bbolt.Tx) error {
		var ok bool
		var err error
		if t, ok, err = get[tokenRecord](tx, bucketToken, []byte(id)); err == nil && (!ok || t.over(time.Now())) {
			err = noToken(id)
		}
		return err
	})
	return t.Token, err
}

func noToken(id string) error { return fault.New(fault.NotFound, "no such token: %s", id) }

// Tokens gives the personal tokens of a user, or with "" those of all.
func (s *Store) Tokens(user string) ([]Token, error) {
	var all []Token
	err := s.db.View(func(tx *bbolt.Tx) error {
		return each(tx, bucketToken, func(_ []byte, t tokenRecord) error {
			if user == "" || t.User == user {
				all = append(all, t.Token)
			}
			return nil
		})
	})
	return all, err
}

// RemoveToken revokes a personal token. With a user, only one of his.
func (s *Store) RemoveToken(user, id string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		t, ok, err := get[tokenRecord](tx, bucketToken, []byte(id))
		if err != nil {
			return err
		}
		if !ok || user != "" && t.User != user {
			return noToken(id)
		}
		return removeToken(tx, t)
	})
}

// Refresh is a refresh token, without its secret.
type Refresh struct {
	User    auth.User `json:"user"` // as he was when he signed in
	Service string    `json:"service"`
	Client  string    `json:"client,omitempty"`
	Token   string    `json:"token,omitempty"` // id of the personal token that he signed in with: it ends with that
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// AddRefresh keeps a refresh token and gives its secret. The oldest of a user go when he has too many.
func (s *Store) AddRefresh(r Refresh) (string, error) {
	text := mark(r.User.Name) + "." + secret.Token()
	r.Created = time.Now().UTC()
	return text, s.db.Update(func(tx *bbolt.Tx) error {
		n := 0
		var oldest []byte
		var since time.Time
		err := below(tx, bucketRefresh, mark(r.User.Name), func(k []byte, other Refresh) error {
			n++
			if oldest == nil || other.Created.Before(since) {
				oldest, since = k, other.Created
			}
			return nil
		})
		if err != nil {
			return err
		}
		if n >= tokensPerUser {
			if err := tx.Bucket(bucketRefresh).Delete(oldest); err != nil {
				return err
			}
		}
		return put(tx, bucketRefresh, refreshKey(text), r)
	})
}

// CheckRefresh gives what a refresh token was given for. Unknown, expired, or for another service, is Unauthorized, and
// so is one whose personal token is gone. Whether the user still exists is for the caller to ask.
func (s *Store) CheckRefresh(service, text string) (Refresh, *Token, error) {
	var r Refresh
	var t *Token
	err := s.db.View(func(tx *bbolt.Tx) error {
		var ok bool
		var err error
		r, ok, err = get[Refresh](tx, bucketRefresh, refreshKey(text))
		if err != nil || !ok || r.Token == "" {
			if err == nil && !ok {
				err = errRefresh
			}
			return err
		}
		held, ok, err := get[tokenRecord](tx, bucketToken, []byte(r.Token))
		if err == nil && (!ok || held.over(time.Now())) {
			err = errRefresh
		}
		t = &held.Token
		return err
	})
	if err == nil && (time.Now().After(r.Expires) || r.Service != service) {
		err = errRefresh
	}
	if err != nil {
		return Refresh{}, nil, err
	}
	return r, t, nil
}

var errRefresh = fault.New(fault.Unauthorized, "the stored sign-in has ended: sign in again with docker login")

// RemoveRefresh revokes one refresh token by its secret; one that is not known is no error.
func (s *Store) RemoveRefresh(text string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketRefresh).Delete(refreshKey(text))
	})
}

// SignOut revokes all refresh tokens of a user and gives their number.
func (s *Store) SignOut(user string) (int, error) {
	n := 0
	err := s.db.Update(func(tx *bbolt.Tx) error {
		var err error
		n, err = dropRefreshOf(tx, user)
		return err
	})
	return n, err
}

// Sweep removes what has expired and gives the number.
func (s *Store) Sweep(now time.Time) (int, error) {
	n := 0
	err := s.db.Update(func(tx *bbolt.Tx) error {
		gone, err := drop(tx, bucketRefresh, func(r Refresh) bool { return now.After(r.Expires) })
		n = gone
		if err != nil {
			return err
		}
		var expired []tokenRecord
		err = each(tx, bucketToken, func(_ []byte, t tokenRecord) error {
			if t.over(now) {
				expired = append(expired, t)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, t := range expired {
			if err := removeToken(tx, t); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

// mark begins the refresh tokens of a user, and their keys, so that they stand together.
func mark(user string) string { return secret.Fingerprint(user)[:16] }

func refreshKey(text string) []byte {
	user, _, _ := strings.Cut(text, ".")
	return []byte(user + secret.Fingerprint(text))
}

func dropRefresh(tx *bbolt.Tx, user string) error {
	_, err := dropRefreshOf(tx, user)
	return err
}

func dropRefreshOf(tx *bbolt.Tx, user string) (int, error) {
	var keys [][]byte
	err := below(tx, bucketRefresh, mark(user), func(k []byte, r Refresh) error {
		if r.User.Name == user {
			keys = append(keys, k)
		}
		return nil
	})
	for _, k := range keys {
		if err == nil {
			err = tx.Bucket(bucketRefresh).Delete(k)
		}
	}
	return len(keys), err
}

func dropTokens(tx *bbolt.Tx, user string) error {
	var his []tokenRecord
	err := each(tx, bucketToken, func(_ []byte, t tokenRecord) error {
		if t.User == user {
			his = append(his, t)
		}
		return nil
	})
	for _, t := range his {
		if err == nil {
			err = removeToken(tx, t)
		}
	}
	return err
}

func removeToken(tx *bbolt.Tx, t tokenRecord) error {
	if err := tx.Bucket(bucketSecret).Delete([]byte(t.Fingerprint)); err != nil {
		return err
	}
	return tx.Bucket(bucketToken).Delete([]byte(t.ID))
}

func countTokens(tx *bbolt.Tx, user string) (int, error) {
	n := 0
	err := each(tx, bucketToken, func(_ []byte, t tokenRecord) error {
		if t.User == user {
			n++
		}
		return nil
	})
	return n, err
}

// drop deletes the records of a bucket that match. bbolt forbids deleting while it walks, hence the list.
func drop[T any](tx *bbolt.Tx, bucket []byte, match func(T) bool) (int, error) {
	var keys [][]byte
	err := each(tx, bucket, func(k []byte, v T) error {
		if match(v) {
			keys = append(keys, k)
		}
		return nil
	})
	for _, k := range keys {
		if err == nil {
			err = tx.Bucket(bucket).Delete(k)
		}
	}
	return len(keys), err
}
