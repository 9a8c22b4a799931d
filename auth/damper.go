package auth

import (
	"fmt"
	"math/bits"
	"net/netip"
	"sync"
	"time"

	"berth/base/fault"
)

// Damper makes guessing passwords slow. It counts wrong passwords by account and address together, by address, and by
// account; each count has a number of tries that are free, and then a waiting time that doubles with every further
// one. An address from which an account has signed in before is not held up by what others try on that account, so that
// nobody can lock a user out from where he works.
//
// The zero Damper is ready to use.
type Damper struct {
	mu      sync.Mutex
	tries   map[string]*tries
	looking map[string]int // sign-ins that are being looked at, by account and address together, and by address
}

type tries struct {
	wrong int
	good  bool      // this account has signed in from this address
	last  time.Time // of the last wrong one, or of the sign-in
	until time.Time // nothing is looked at before
}

const (
	freeTogether = 5   // wrong passwords for one account from one address
	freeAddress  = 50  // from one address, whatever the account
	freeAccount  = 100 // for one account, from anywhere

	// Sign-ins that are looked at at once, for one account from one address, and from one address: a wrong password counts when it was compared, and
	// whoever sends a thousand at once must not have all of them compared before the first one counts.
	lookTogether = 32
	lookAddress  = 256

	longestWait        = 15 * time.Minute
	longestAccountWait = 10 * time.Second // slows a botnet down, costs a user little
	forgotten          = 30 * time.Minute // after the last try
	damperSize         = 16384            // counts that are kept
)

// Slow is the error of a sign-in that came too soon after wrong ones. Nothing was checked. Its kind is Unavailable; doors answer
// 429 with Retry-After.
type Slow struct{ After time.Duration }

// Error says what to do.
func (s *Slow) Error() string {
	return fmt.Sprintf("too many failed sign-ins: try again in %s", s.After.Round(time.Second))
}

// Unwrap gives the error its kind.
func (s *Slow) Unwrap() error { return fault.New(fault.Unavailable, "too many failed sign-ins") }

// Allow says whether a password may be looked at now; else it gives a *Slow.
func (d *Damper) Allow(account string, from netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	together := d.tries[pair(account, from)]
	wait := until(together, now)
	wait = max(wait, until(d.tries[addressKey(from)], now))
	if together == nil || !together.good {
		wait = max(wait, until(d.tries[accountKey(account)], now))
	}
	if wait > 0 {
		return &Slow{After: max(wait, time.Second)}
	}
	return nil
}

// Begin is Allow, and notes that the password is being looked at until end is called; too many at once are *Slow. Call Right or Wrong
// before end.
func (d *Damper) Begin(account string, from netip.Addr) (end func(), err error) {
	if err := d.Allow(account, from); err != nil {
		return nil, err
	}
	a, b := pair(account, from), addressKey(from)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.looking[a] >= lookTogether || d.looking[b] >= lookAddress {
		return nil, &Slow{After: time.Second}
	}
	if d.looking == nil {
		d.looking = map[string]int{}
	}
	d.looking[a]++
	d.looking[b]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, k := range []string{a, b} {
			if d.looking[k]--; d.looking[k] <= 0 {
				delete(d.looking, k)
			}
		}
	}, nil
}

// Wrong counts a wrong password.
func (d *Damper) Wrong(account string, from netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count(pair(account, from), freeTogether, longestWait)
	d.count(addressKey(from), freeAddress, longestWait)
	d.count(accountKey(account), freeAccount, longestAccountWait)
}

// Right forgets the wrong passwords of the account from the address. The counts of the address and of the account stay:
// one known password must not wash off the guessing of others.
func (d *Damper) Right(account string, from netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.entry(pair(account, from))
	*t = tries{good: true, last: time.Now()}
}

func (d *Damper) count(key string, free int, longest time.Duration) {
	t := d.entry(key)
	now := time.Now()
	if now.Sub(t.last) > forgotten {
		t.wrong = 0
	}
	t.wrong++
	t.last = now
	if over := t.wrong - free; over >= 0 {
		t.until = now.Add(min(time.Second<<min(over, 30), longest))
	}
}

func (d *Damper) entry(key string) *tries {
	if t := d.tries[key]; t != nil {
		return t
	}
	if d.tries == nil {
		d.tries = map[string]*tries{}
	}
	if len(d.tries) >= damperSize {
		d.prune()
	}
	t := &tries{}
	d.tries[key] = t
	return t
}

// prune makes room: what is forgotten goes, and when that is not enough, what has the fewest wrong tries.
func (d *Damper) prune() {
	now := time.Now()
	var byWeight [64]int
	for k, t := range d.tries {
		if now.Sub(t.last) > forgotten {
			delete(d.tries, k)
			continue
		}
		byWeight[bits.Len(uint(t.wrong))]++
	}
	excess := len(d.tries) - damperSize*3/4
	for weight := 0; excess > 0 && weight < len(byWeight); weight++ {
		for k, t := range d.tries {
			if excess > 0 && bits.Len(uint(t.wrong)) == weight {
				delete(d.tries, k)
				excess--
			}
		}
	}
}

func until(t *tries, now time.Time) time.Duration {
	if t == nil {
		return 0
	}
	return t.until.Sub(now)
}

func pair(account string, from netip.Addr) string { return "p" + network(from) + " " + account }
func addressKey(from netip.Addr) string           { return "a" + network(from) }
func accountKey(account string) string            { return "u" + account }

// network takes an IPv6 client for the /64 that he may choose addresses from.
func network(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
