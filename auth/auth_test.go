package auth

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"berth/base/fault"
)

// fixed knows one user; it counts what it is asked.
type fixed struct {
	user, password string
	err            error // instead of an answer
	mu             sync.Mutex
	asked          int
	delay          time.Duration
}

func (f *fixed) Password(_ context.Context, user, password string) (User, error) {
	f.mu.Lock()
	f.asked++
	f.mu.Unlock()
	time.Sleep(f.delay)
	switch {
	case f.err != nil:
		return User{}, f.err
	case user != f.user:
		return User{}, ErrNoUser
	case password != f.password:
		return User{}, ErrPassword
	}
	return User{Name: user, Source: f.password}, nil
}

func (f *fixed) Lookup(_ context.Context, user string) (User, error) {
	return f.Password(context.Background(), user, f.password)
}

func TestChain(t *testing.T) {
	first, second := &fixed{user: "alice", password: "one"}, &fixed{user: "bob", password: "two"}
	shadow := &fixed{user: "alice", password: "two"}
	down := &fixed{err: fault.New(fault.Unavailable, "down")}
	for _, c := range []struct {
		what           string
		chain          Chain
		user, password string
		kind           fault.Kind // of the error; Internal: none
	}{
		{"the first knows", Chain{first, second}, "alice", "one", fault.Internal},
		{"the second knows", Chain{first, second}, "bob", "two", fault.Internal},
		{"nobody knows", Chain{first, second}, "carol", "x", fault.Unauthorized},
		{"an earlier one hides a later one", Chain{first, shadow}, "alice", "two", fault.Unauthorized},
		{"an earlier one is down", Chain{down, first}, "alice", "one", fault.Unavailable},
		{"a later one is down", Chain{first, down}, "alice", "one", fault.Internal},
		{"no password", Chain{&fixed{user: "alice"}}, "alice", "", fault.Unauthorized},
		{"too long", Chain{first}, "alice", strings.Repeat("x", MaxPassword+1), fault.Unauthorized},
		{"control character", Chain{first}, "al\nice", "one", fault.Unauthorized},
	} {
		_, err := c.chain.Password(t.Context(), c.user, c.password)
		if (err != nil || c.kind != fault.Internal) && fault.KindOf(err) != c.kind || (err == nil) != (c.kind == fault.Internal) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if u, err := (Chain{first, second}).Lookup(t.Context(), "bob"); err != nil || u.Name != "bob" {
		t.Errorf("lookup: %+v, %v", u, err)
	}
	if _, err := (Chain{first}).Lookup(t.Context(), "carol"); !errors.Is(err, ErrNoUser) {
		t.Errorf("lookup of nobody: %v", err)
	}
}

func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &fixed{user: "alice", password: "one", delay: time.Second}
		c := NewCache(inner, time.Minute)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := c.Password(t.Context(), "alice", "one"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if inner.asked != 1 {
			t.Errorf("equal questions at once cost %d answers", inner.asked)
		}
		for range 2 {
			if _, err := c.Password(t.Context(), "alice", "wrong"); err == nil {
				t.Error("a wrong password is right")
			}
		}
		if inner.asked != 3 {
			t.Errorf("wrong passwords are asked each time: %d", inner.asked)
		}
		inner.password = "two"
		if _, err := c.Password(t.Context(), "alice", "one"); err != nil {
			t.Error("is remembered:", err)
		}
		c.Forget()
		if _, err := c.Password(t.Context(), "alice", "one"); err == nil {
			t.Error("is remembered after Forget")
		}
		if _, err := c.Password(t.Context(), "alice", "two"); err != nil {
			t.Error("the new password works at once:", err)
		}
		inner.password = "three"
		time.Sleep(2 * time.Minute)
		if _, err := c.Password(t.Context(), "alice", "two"); err == nil {
			t.Error("is remembered for too long")
		}
		// An answer that was under way when the password was changed is not kept.
		inner.password = "four"
		var under sync.WaitGroup
		under.Go(func() { c.Password(t.Context(), "alice", "four") })
		time.Sleep(time.Millisecond)
		c.Forget()
		under.Wait()
		asked := inner.asked
		c.Password(t.Context(), "alice", "four")
		if inner.asked != asked+1 {
			t.Error("an answer from before Forget is remembered")
		}
		// A client that goes away does not take the answer from the others.
		c.Forget()
		gone, leave := context.WithCancel(t.Context())
		var both sync.WaitGroup
		both.Go(func() {
			if _, err := c.Password(gone, "alice", "four"); !errors.Is(err, context.Canceled) {
				t.Errorf("the one who left: %v", err)
			}
		})
		time.Sleep(time.Millisecond)
		both.Go(func() {
			if _, err := c.Password(t.Context(), "alice", "four"); err != nil {
				t.Errorf("the one who stayed: %v", err)
			}
		})
		time.Sleep(time.Millisecond)
		leave()
		both.Wait()
	})
}

func TestCacheIsBounded(t *testing.T) {
	c := NewCache(&fixed{}, time.Hour)
	for i := range cacheSize + 100 {
		var k [32]byte
		k[0], k[1] = byte(i), byte(i>>8)
		c.keep(k, User{}, 0)
	}
	if len(c.known) > cacheSize {
		t.Errorf("%d remembered", len(c.known))
	}
}

// Wrong passwords that are sent all at once are not all compared before the first one counts.
func TestDamperAtOnce(t *testing.T) {
	var d Damper
	here := netip.MustParseAddr("192.0.2.1")
	var ends []func()
	for {
		end, err := d.Begin("alice", here)
		if err != nil {
			if !errors.As(err, new(*Slow)) {
				t.Fatal(err)
			}
			break
		}
		if ends = append(ends, end); len(ends) > 1000 {
			t.Fatal("any number is compared at once")
		}
	}
	if len(ends) < 8 {
		t.Errorf("%d at once: clients do that too", len(ends))
	}
	for account, from := range map[string]string{"bob": "192.0.2.1", "alice": "192.0.2.2"} {
		end, err := d.Begin(account, netip.MustParseAddr(from))
		if err != nil {
			t.Fatalf("others wait too: %v", err)
		}
		ends = append(ends, end)
	}
	for _, end := range ends {
		end()
	}
	if len(d.looking) != 0 {
		t.Errorf("what has ended is remembered: %v", d.looking)
	}
	if _, err := d.Begin("alice", here); err != nil || len(d.looking) != 2 {
		t.Errorf("it does not end: %v, %v", err, d.looking)
	}
}

func TestDamper(t *testing.T) {
	here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	slow := func(d *Damper, account string, from netip.Addr) time.Duration {
		var s *Slow
		if err := d.Allow(account, from); errors.As(err, &s) {
			if !fault.Is(err, fault.Unavailable) {
				t.Errorf("kind %v", fault.KindOf(err))
			}
			return s.After
		}
		return 0
	}
	wrong := func(d *Damper, n int, account string, from netip.Addr) {
		for range n {
			d.Wrong(account, from)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var d Damper
		wrong(&d, freeTogether-1, "alice", here)
		if w := slow(&d, "alice", here); w != 0 {
			t.Errorf("the first ones are free: %v", w)
		}
		wrong(&d, 1, "alice", here)
		if w := slow(&d, "alice", here); w != time.Second {
			t.Errorf("then one waits: %v", w)
		}
		if slow(&d, "alice", there) != 0 || slow(&d, "bob", here) != 0 {
			t.Error("others wait too")
		}
		time.Sleep(time.Second)
		if w := slow(&d, "alice", here); w != 0 {
			t.Errorf("after the wait: %v", w)
		}
		wrong(&d, 3, "alice", here)
		if w := slow(&d, "alice", here); w != 8*time.Second {
			t.Errorf("the wait doubles: %v", w)
		}
		wrong(&d, 50, "alice", here)
		if w := slow(&d, "alice", here); w != longestWait {
			t.Errorf("the longest wait: %v", w)
		}
		time.Sleep(forgotten + time.Minute)
		wrong(&d, 1, "alice", here)
		if w := slow(&d, "alice", here); w != 0 {
			t.Errorf("old ones are forgotten: %v", w)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var d Damper
		d.Right("alice", here)
		for i := range 120 { // from many addresses
			d.Wrong("alice", netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
		}
		if w := slow(&d, "alice", there); w == 0 || w > longestAccountWait {
			t.Errorf("an account that many guess at: %v", w)
		}
		if w := slow(&d, "alice", here); w != 0 {
			t.Errorf("its user is locked out where he works: %v", w)
		}
		for i := range 60 { // many accounts from one address
			d.Wrong("user"+string(rune('a'+i%26))+string(rune('a'+i/26)), there)
		}
		if slow(&d, "fresh", there) == 0 {
			t.Error("an address that guesses many accounts does not wait")
		}
		six := netip.MustParseAddr("2001:db8:1:2::1")
		wrong(&d, 10, "carol", six)
		if slow(&d, "carol", netip.MustParseAddr("2001:db8:1:2:ffff::9")) == 0 {
			t.Error("another address of the same /64 does not wait")
		}
		if slow(&d, "carol", netip.MustParseAddr("2001:db8:1:3::1")) != 0 {
			t.Error("another network waits")
		}
	})
	var d Damper
	wrong(&d, 30, "alice", here)
	for i := range damperSize + 100 {
		d.Right("x", netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if len(d.tries) > damperSize {
		t.Errorf("%d counts are kept", len(d.tries))
	}
	if slow(&d, "alice", here) == 0 {
		t.Error("whoever guesses is washed off by filling the table")
	}
}
