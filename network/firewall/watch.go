package firewall

import (
	"context"
	"errors"
	"maps"
	"os"
	"reflect"
	"time"

	"berth/kernel/nft"
)

// How long after a change of others their rules are looked at; how often at most in the long run when programs are run for a look, and how many
// looks may follow each other without that pause.
const (
	settled  = 200 * time.Millisecond
	askAgain = 10 * time.Second
	inARow   = 6
)

// When a manager that could not be asked is asked again, though nothing changes: firewalld may be starting, or too busy to answer. Each
// further try takes twice as long to come.
const (
	firstRetry = 2 * time.Second
	lastRetry  = 10 * time.Minute
)

// watch starts the goroutine that puts back what others take away. Close ends it and waits for it.
func (f *Firewall) watch() error {
	w, err := f.conn.Watch()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	events := make(chan struct{}, 1)
	f.stop = func() {
		stop()
		w.Close()
	}
	f.wait.Go(func() {
		defer close(events)
		for {
			err := w.Next()
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err != nil {
				f.config.Log.Warn("changes of the host's firewall are not seen any more", "error", err)
				return
			}
			select {
			case events <- struct{}{}:
			default:
			}
		}
	})
	f.wait.Go(func() { f.mend(ctx, events, f.check) })
	return nil
}

// mend looks at the rules after changes of others, until events ends, and again where somebody could not be asked or the look itself failed.
// look is check.
func (f *Firewall) mend(ctx context.Context, events <-chan struct{}, look func(context.Context) (asked bool, err error)) {
	var next time.Time // when a look is due by the long run's measure; it may come up to inARow pauses earlier
	var retry <-chan time.Time
	pause := firstRetry
	for {
		select {
		case _, open := <-events:
			if !open {
				return
			}
		case <-f.unheard:
			retry, pause = time.After(pause), min(2*pause, lastRetry)
			continue
		case <-retry:
			retry = nil
		}
		if earliest := time.Now().Add(-inARow * askAgain); next.Before(earliest) {
			next = earliest
		}
		select {
		case <-time.After(max(settled, time.Until(next))):
		case <-ctx.Done():
			return
		}
		asked, err := look(ctx)
		if err != nil && ctx.Err() == nil {
			f.config.Log.Warn("firewall rules could not be mended", "error", err)
		}
		if asked {
			next = next.Add(askAgain)
		}
		switch {
		case len(f.unheard) > 0: // the next turn takes it
		case err == nil:
			retry, pause = nil, firstRetry
		case retry == nil: // who was to be asked has not been
			retry, pause = time.After(pause), min(2*pause, lastRetry)
		}
	}
}

// check loads the rules again when they are not there, and asks others again; asked says that there was somebody to ask.
func (f *Firewall) check(ctx context.Context) (asked bool, err error) {
	if err := f.take(ctx); err != nil {
		return false, err
	}
	defer f.give()
	f.mu.Lock()
	loaded, networks, ports, before := f.loaded, maps.Clone(f.networks), maps.Clone(f.ports), f.asked
	f.mu.Unlock()
	if !loaded {
		return false, nil
	}
	chains, err := f.conn.Chains()
	if err != nil {
		return false, err
	}
	s := f.state()
	if !complete(Compile(s), chains) {
		f.config.Log.Warn("somebody has taken away the engine's firewall rules; they are loaded anew")
		return true, f.replace(ctx, networks, ports)
	}
	if f.config.Policy.ObeyInput { // it may be another policy now
		b := nft.NewBatch().FlushSet(nft.Inet, f.config.Table, shape("admitted", true).Name).FlushSet(nft.Inet, f.config.Table, shape("admitted", false).Name)
		if err := f.conn.Load(b); err != nil {
			return false, err
		}
	}
	managers, err := f.observe(ctx)
	if err != nil {
		return false, err
	}
	s.Managers = managers
	now := asks(s)
	f.mu.Lock()
	f.managers, f.asked = managers, now
	f.mu.Unlock()
	if len(now) > 0 || !reflect.DeepEqual(before, now) {
		f.ask(ctx, before, now)
	}
	return len(now) > 0, nil
}

// complete reports whether all chains of the rules are among those that the kernel has.
func complete(r Ruleset, chains []nft.ChainInfo) bool {
	type name struct {
		family       nft.Family
		table, chain string
	}
	have := map[name]bool{}
	for _, c := range chains {
		have[name{c.Family, c.Table, c.Name}] = true
	}
	for _, c := range r.Table.Chains {
		if !have[name{r.Table.Family, r.Table.Name, c.Name}] {
			return false
		}
	}
	return true
}
