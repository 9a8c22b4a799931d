package nft

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/kernel/netns"
)

func TestChains(t *testing.T) {
	ns := newNamespace(t)
	run(t, ns, `add table ip filter
add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
add chain ip filter DOCKER-USER
add table inet f
add chain inet f in { type filter hook input priority -5; policy accept; }
`, "nft", "-f", "-")
	c, err := Dial(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	chains, err := c.Chains()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []ChainInfo{
		{IPv4, "filter", "FORWARD", Hook{Filter, Forward, 0, true}},
		{IPv4, "filter", "DOCKER-USER", Hook{}},
		{Inet, "f", "in", Hook{Filter, Input, -5, false}},
	} {
		if !slices.Contains(chains, want) {
			t.Errorf("no %+v in %+v", want, chains)
		}
	}
	if len(chains) != 3 {
		t.Errorf("%+v", chains)
	}
}

// Whatever bytes come as an answer, reading them ends.
func FuzzAnswers(f *testing.F) {
	var m message
	at := m.begin(unix.NFT_MSG_NEWCHAIN, 0, 7, Inet, 0)
	m.str(unix.NFTA_CHAIN_TABLE, "t")
	h := m.open(unix.NFTA_CHAIN_HOOK)
	m.u32(unix.NFTA_HOOK_HOOKNUM, 2)
	m.end(h)
	m.finish(at)
	f.Add(m.b)
	f.Add([]byte("\x24\x00\x00\x00\x02\x00\x00\x02\x07\x00\x00\x00\x00\x00\x00\x00\xfe\xff\xff\xff\x10\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := writer{first: 7, seq: 9, names: []string{"batch", "one"}}
		w.answer(b)
		foreign(b, 7)
		refusesAll(b, ChainInfo{})
		dumped(b, 7, func(family byte, body []byte) { chainInfo(family, body) })
	})
}

func TestRefuses(t *testing.T) {
	ns := newNamespace(t)
	run(t, ns, `add table inet f
add chain inet f closed { type filter hook forward priority 0; policy drop; }
add chain inet f last { type filter hook forward priority 1; }
add rule inet f last tcp dport 80 accept
add rule inet f last counter log prefix "x" drop
add chain inet f rejects { type filter hook input priority 1; }
add rule inet f rejects reject with icmpx type admin-prohibited
add chain inet f plain
add rule inet f plain drop
add chain inet f some { type filter hook forward priority 2; }
add rule inet f some ip saddr 10.0.0.0/8 drop
add rule inet f some limit rate 1/second drop
add rule inet f some jump plain
`, "nft", "-f", "-")
	c, err := Dial(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	chains, err := c.Chains()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"closed": true, "last": true, "rejects": true, "some": false, "plain": false}
	for _, chain := range chains {
		if got, err := c.Refuses(chain); err != nil || got != want[chain.Name] {
			t.Errorf("%s: %v, %v", chain.Name, got, err)
		}
	}
	if len(chains) != len(want) {
		t.Errorf("%+v", chains)
	}
}

func TestWatch(t *testing.T) {
	ns := newNamespace(t)
	var c *Conn
	var w *Watcher
	err := netns.Do(ns, func() (err error) {
		if c, err = Dial(nil); err == nil {
			w, err = c.Watch()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	told := make(chan error)
	go func() {
		for {
			err := w.Next()
			told <- err
			if err != nil {
				return
			}
		}
	}()
	for range 20 { // from whatever thread
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // which ends with the goroutine, so that the next has another
			done <- c.Load(NewBatch().Add(Table{Family: IPv4, Name: "own"}).Delete(IPv4, "own"))
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	run(t, ns, "add table ip other\n", "nft", "-f", "-")
	if err := <-told; err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-told:
		t.Errorf("told once more than there was: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	w.Close()
	if err := <-told; !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}
