package crash

import (
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"berth/kernel/netns"
)

// A container asks for another's name all the time while the engine is killed and started again: no question is lost, and those
// that were asked meanwhile are answered within 100 ms of the start (a busy machine is given more).
func TestNamesWhileTheEngineDies(t *testing.T) {
	const kills = 5
	image := busyboxImage(t)
	e := newEngine(t)
	e.start()
	t.Cleanup(func() { e.end() })
	if code, b := e.insist("POST", "/images/load?quiet=1", image); code != http.StatusOK {
		t.Fatalf("load: %d %s", code, b)
	}
	if code, b := e.insist("POST", "/networks/create", map[string]any{"Name": dock}); code != http.StatusCreated {
		t.Fatalf("create a network: %d %s", code, b)
	}
	var both []life
	for _, name := range []string{"asker", "asked"} {
		l := life{e: e, name: name, script: "while :; do sleep 1; done", host: map[string]any{"NetworkMode": dock}}
		l.create()
		l.start()
		both = append(both, l)
	}
	ns, err := netns.OfProcess(both[0].inspect().State.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	a := &asker{t: t, ns: ns, name: "asked."}
	for _, network := range []string{"udp", "tcp"} {
		if _, err := a.ask(network); err != nil {
			t.Fatalf("%s, before any kill: %v", network, err)
		}
	}
	stop := make(chan struct{})
	var asking sync.WaitGroup
	for _, network := range []string{"udp", "udp", "tcp"} {
		asking.Go(func() { a.loop(network, stop) })
	}
	for range kills {
		time.Sleep(100 * time.Millisecond)
		e.kill()
		time.Sleep(150 * time.Millisecond)
		e.start()
		up := time.Now()
		time.Sleep(100 * time.Millisecond)
		late := a.oldest(up)
		t.Logf("100 ms after the engine answers, %d questions from before wait", late)
		for deadline := up.Add(prompt); a.oldest(up) > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%d questions from before the start still wait %v after it", a.oldest(up), prompt)
				break
			}
		}
	}
	close(stop)
	asking.Wait()
	a.mu.Lock()
	t.Logf("%d questions, %d not answered, the slowest took %v", a.asked, a.lost, a.slowest)
	if a.lost > 0 || a.asked < 100 {
		t.Errorf("%d of %d questions were not answered: %v", a.lost, a.asked, a.err)
	}
	a.mu.Unlock()
	for _, l := range both {
		l.kill()
		l.remove()
	}
	if code, b := e.insist("DELETE", "/networks/"+dock, nil); code != http.StatusNoContent {
		t.Errorf("remove a network: %d %s", code, b)
	}
}

// asker asks the name server of one namespace.
type asker struct {
	t    *testing.T
	ns   *os.File
	name string

	mu          sync.Mutex
	asked, lost int
	slowest     time.Duration
	err         error
	waiting     map[*time.Time]bool // since when
}

// oldest counts the questions that were asked before a time and wait still.
func (a *asker) oldest(before time.Time) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for since := range a.waiting {
		if since.Before(before) {
			n++
		}
	}
	return n
}

func (a *asker) loop(network string, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(2 * time.Millisecond):
		}
		begin := time.Now()
		a.mu.Lock()
		if a.waiting == nil {
			a.waiting = map[*time.Time]bool{}
		}
		a.waiting[&begin] = true
		a.mu.Unlock()
		took, err := a.ask(network)
		a.mu.Lock()
		delete(a.waiting, &begin)
		a.asked++
		a.slowest = max(a.slowest, took)
		if err != nil {
			a.lost++
			a.err = err
		}
		a.mu.Unlock()
	}
}

// ask sends one question once and waits for its answer. A connection that the engine's death breaks is made again, as resolvers do.
func (a *asker) ask(network string) (time.Duration, error) {
	begin := time.Now()
	var err error
	for range 3 {
		if err = a.once(network); err == nil || network == "udp" {
			break
		}
	}
	return time.Since(begin), err
}

func (a *asker) once(network string) error {
	var conn net.Conn
	err := netns.Do(a.ns, func() (err error) {
		conn, err = net.DialTimeout(network, "127.0.0.11:53", 30*time.Second)
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second)) // the engine's start is in it
	var q dns.Msg
	q.SetQuestion(a.name, dns.TypeA)
	c := &dns.Conn{Conn: conn}
	if err := c.WriteMsg(&q); err != nil {
		return err
	}
	r, err := c.ReadMsg()
	if err == nil && (r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1) {
		a.t.Errorf("answered %v", r)
	}
	return err
}
