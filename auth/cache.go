package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"berth/base/fault"
)

// Cache remembers for a short time which passwords were right. What it keeps is a hash keyed with bytes that never
// leave the process, so that its memory is of no use to guess passwords with. Wrong passwords are not remembered: a
// password that was just set works at once. A password that was changed, and a user who was removed, work at most for
// the cache's time longer, unless Forget is called.
type Cache struct {
	inner Authenticator
	life  time.Duration
	key   [32]byte
	same  singleflight.Group // equal questions asked at once are answered once

	mu    sync.Mutex
	known map[[32]byte]remembered
	names map[string]remembered // of Lookup
	epoch uint64                // counts calls of Forget: an answer that was under way is not remembered
}

type remembered struct {
	user  User
	until time.Time
}

// cacheSize bounds the number of remembered passwords.
const cacheSize = 4096

// NewCache puts a cache before an authenticator. A life of zero means one minute.
func NewCache(inner Authenticator, life time.Duration) *Cache {
	if life <= 0 {
		life = time.Minute
	}
	c := &Cache{inner: inner, life: life, known: map[[32]byte]remembered{}, names: map[string]remembered{}}
	rand.Read(c.key[:]) // never fails: crypto/rand ends the process instead (Go 1.24)
	return c
}

// Password answers from memory, or asks and remembers when the password was right.
func (c *Cache) Password(ctx context.Context, user, password string) (User, error) {
	if err := Check(user, password); err != nil {
		return User{}, err
	}
	k := c.hash(user, password)
	if u, ok := c.lookup(k); ok {
		return u, nil
	}
	ch := c.same.DoChan(string(k[:]), func() (any, error) {
		// Whoever asked first may go away; the others still want the answer.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		epoch := c.now()
		u, err := c.inner.Password(ctx, user, password)
		if err == nil {
			c.keep(k, u, epoch)
		}
		return u, err
	})
	select {
	case r := <-ch:
		return r.Val.(User), r.Err
	case <-ctx.Done():
		return User{}, ctx.Err()
	}
}

// Lookup answers from memory, or asks and remembers who exists. It is NotImplemented when the authenticator is no Directory.
func (c *Cache) Lookup(ctx context.Context, user string) (User, error) {
	d, ok := c.inner.(Directory)
	if !ok {
		return User{}, fault.New(fault.NotImplemented, "users cannot be looked up without their password")
	}
	c.mu.Lock()
	r, ok := c.names[user]
	epoch := c.epoch
	c.mu.Unlock()
	if ok && time.Now().Before(r.until) {
		return r.user, nil
	}
	u, err := d.Lookup(ctx, user)
	if err != nil {
		return u, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch == c.epoch {
		evict(c.names)
		c.names[user] = remembered{u, time.Now().Add(c.life)}
	}
	return u, nil
}

// Forget drops what is remembered of all users: after a password was changed or a user removed.
func (c *Cache) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.known)
	clear(c.names)
	c.epoch++
}

func (c *Cache) now() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

func (c *Cache) lookup(k [32]byte) (User, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.known[k]
	if !ok || time.Now().After(r.until) {
		return User{}, false
	}
	return r.user, true
}

func (c *Cache) keep(k [32]byte, u User, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch {
		return
	}
	evict(c.known)
	c.known[k] = remembered{u, time.Now().Add(c.life)}
}

// evict makes room in a table that is full: what is too old goes, and as much of the rest as must.
func evict[K comparable](table map[K]remembered) {
	if len(table) < cacheSize {
		return
	}
	now := time.Now()
	for k, r := range table {
		if now.After(r.until) || len(table) >= cacheSize {
			delete(table, k)
		}
	}
}

// hash tells ("ab", "c") from ("a", "bc") by the length of the name.
func (c *Cache) hash(user, password string) (k [32]byte) {
	h := hmac.New(sha256.New, c.key[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(user)))
	h.Write(n[:])
	h.Write([]byte(user))
	h.Write([]byte(password))
	copy(k[:], h.Sum(nil))
	return k
}
