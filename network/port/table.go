package port

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/base/fault"
	"berth/kernel/sock"
)

// Key is a port of the host. IP is unspecified ("0.0.0.0", "::") for all addresses of its family.
type Key struct {
	Proto string // "tcp", "udp", "sctp"
	IP    netip.Addr
	Port  uint16
}

// String gives "0.0.0.0:80/tcp".
func (k Key) String() string { return netip.AddrPortFrom(k.IP, k.Port).String() + "/" + k.Proto }

// Holder is who holds a port.
type Holder struct{ ID, Name string }

// Parker keeps descriptors by name while this process is away.
type Parker interface {
	Park(ctx context.Context, name string, f *os.File) error
	Take(ctx context.Context, name string) (*os.File, error)
	Unpark(ctx context.Context, name string) error
	Parked(ctx context.Context) ([]string, error)
}

// Table is the reservations of an engine. The zero value is not usable.
type Table struct {
	// Listens makes TCP sockets listen although nobody accepts: who looks for listening sockets to lead clients to, as pasta(1) does,
	// finds them. Lowest is the first port that can be had, 0 for all. Both are set before the first Reserve.
	Listens bool
	Lowest  uint16
	// Elsewhere reports whether a program has a TCP port where clients come from, when that is another network namespace. It is not
	// asked soon after a release, while who leads clients here may have the port still. nil: nobody can.
	Elsewhere func(port uint16) bool

	parker Parker // nil: sockets are held here
	log    *slog.Logger

	mu   sync.Mutex
	held map[Key]*reservation
	by   map[number][]Key     // the same, by port
	left map[uint16]time.Time // when TCP ports were released, if Elsewhere is asked
	born time.Time
	next int // where the search for a random port goes on
}

// number is a port without the address.
type number struct {
	proto string
	v4    bool
	port  uint16
}

func (k Key) number() number { return number{k.Proto, k.IP.Is4(), k.Port} }

// put and drop keep held and by the same; mu is held.
func (t *Table) put(k Key, r *reservation) {
	if t.held[k] == nil {
		t.by[k.number()] = append(t.by[k.number()], k)
	}
	t.held[k] = r
}

func (t *Table) drop(k Key) {
	delete(t.held, k)
	if t.Elsewhere != nil && k.Proto == "tcp" {
		maps.DeleteFunc(t.left, func(_ uint16, at time.Time) bool { return time.Since(at) > lingers })
		t.left[k.Port] = time.Now()
	}
	left := slices.DeleteFunc(t.by[k.number()], func(o Key) bool { return o == k })
	if len(left) == 0 {
		delete(t.by, k.number())
		return
	}
	t.by[k.number()] = left
}

type reservation struct {
	holder Holder
	socket *os.File // nil: parked, or the protocol has no sockets here
}

// New makes an empty table. parker may be nil.
func New(parker Parker, log *slog.Logger) *Table {
	return &Table{parker: parker, log: log, held: map[Key]*reservation{}, by: map[number][]Key{}, left: map[uint16]time.Time{}, born: time.Now()}
}

// Want is one port for some addresses: the same number on each of them.
type Want struct {
	Proto       string
	IPs         []netip.Addr
	First, Last uint16 // any free one of these; both 0: of the host's ephemeral range
}

// parkPrefix begins the names of our sockets in the keeper.
const parkPrefix = "port/"

func (k Key) parked() string { return parkPrefix + k.String() }

// Reserve reserves a port for each want, in their order, or none: the first port that is free is taken. When a port is
// asked for that somebody has, the error says in Docker's words that it is allocated, and by whom.
func (t *Table) Reserve(ctx context.Context, h Holder, wants []Want) ([]uint16, error) {
	var done []Key
	ports := make([]uint16, 0, len(wants))
	for _, w := range wants {
		p, err := t.one(ctx, h, w)
		if err != nil {
			t.Release(ctx, done...)
			return nil, err
		}
		ports = append(ports, p)
		for _, ip := range w.IPs {
			done = append(done, Key{w.Proto, ip, p})
		}
	}
	return ports, nil
}

// one reserves the first port that is free on all addresses of a want.
func (t *Table) one(ctx context.Context, h Holder, w Want) (uint16, error) {
	first, last, at := int(w.First), int(w.Last), int(w.First)
	if first == 0 {
		first, last = ephemeral()
		at = t.start(first, last)
	}
	var refused error
	for i := range last - first + 1 {
		p := first + (at-first+i)%(last-first+1)
		err := t.all(ctx, h, w, uint16(p))
		if err == nil {
			if w.First == 0 {
				t.advance(p + 1)
			}
			return uint16(p), nil
		}
		if !fault.Is(err, fault.Conflict) {
			return 0, err
		}
		if refused == nil || first == last {
			refused = err
		}
	}
	switch {
	case w.First == 0:
		return 0, fault.New(fault.Unavailable, "no free port of %d to %d for %s", first, last, w.Proto)
	case first != last:
		return 0, fault.Wrap(fault.Conflict, refused, "all ports are allocated: %d-%d/%s", first, last, w.Proto)
	}
	return 0, refused
}

// all reserves one port on all addresses of a want, or on none.
func (t *Table) all(ctx context.Context, h Holder, w Want, p uint16) error {
	for i, ip := range w.IPs {
		if err := t.key(ctx, h, Key{w.Proto, ip, p}); err != nil {
			for _, done := range w.IPs[:i] {
				t.Release(ctx, Key{w.Proto, done, p})
			}
			return err
		}
	}
	return nil
}

func (t *Table) key(ctx context.Context, h Holder, k Key) error {
	if k.Port < t.Lowest {
		return fault.New(fault.Forbidden, "Bind for %s failed: an engine without root publishes on ports from %d on; as root, sysctl net.ipv4.ip_unprivileged_port_start=%d", netip.AddrPortFrom(k.IP, k.Port), t.Lowest, k.Port)
	}
	r := &reservation{holder: h}
	t.mu.Lock()
	if by, taken := t.conflict(k); taken {
		t.mu.Unlock()
		return allocated(k, "by container "+by.Name)
	}
	if t.elsewhere(k) {
		t.mu.Unlock()
		return allocated(k, "by a program of the host")
	}
	t.put(k, r) // ours from here on, so that nobody else tries
	t.mu.Unlock()
	if err := t.bind(ctx, k, r); err != nil {
		t.mu.Lock()
		t.drop(k)
		t.mu.Unlock()
		return err
	}
	return nil
}

// lingers is how long who leads clients here may have a port after it was released here: pasta looks once a second.
const lingers = 2 * time.Second

// elsewhere asks Elsewhere about a port that nobody here has or just had; mu is held.
func (t *Table) elsewhere(k Key) bool {
	if t.Elsewhere == nil || k.Proto != "tcp" || time.Since(t.born) < lingers || time.Since(t.left[k.Port]) < lingers {
		return false
	}
	for o := range t.held {
		if o.Proto == "tcp" && o.Port == k.Port {
			return false // of the other family, or at another address: it is ours
		}
	}
	return t.Elsewhere(k.Port)
}

// conflict tells who holds what k would need; mu is held. An address of its own conflicts with all addresses.
func (t *Table) conflict(k Key) (Holder, bool) {
	for _, o := range t.by[k.number()] {
		if o == k || o.IP.IsUnspecified() || k.IP.IsUnspecified() {
			return t.held[o].holder, true
		}
	}
	return Holder{}, false
}

// bind makes the socket of a reservation and parks it.
func (t *Table) bind(ctx context.Context, k Key, r *reservation) error {
	f, err := t.bound(k)
	switch {
	case isTaken(err):
		who := program(k)
		if who == "" {
			who = "by a program of the host"
		}
		return allocated(k, who)
	case isAbsent(err): // no protocol, no program that could want the port
		return nil
	case isNoAddress(err):
		return fault.Wrap(fault.Invalid, err, "Bind for %s failed: the host has no such address", netip.AddrPortFrom(k.IP, k.Port))
	case err != nil:
		return fault.Wrap(fault.Internal, err, "Bind for %s failed", netip.AddrPortFrom(k.IP, k.Port))
	}
	if t.parker == nil {
		r.socket = f
		return nil
	}
	defer f.Close()
	return fault.In(t.parker.Park(ctx, k.parked(), f), "reserve %s", k)
}

// Repark reserves every port again, for a keeper that is new: the sockets went with the one before. A port that somebody has taken
// meanwhile is logged; what is published on it goes on, as the kernel leads it there.
func (t *Table) Repark(ctx context.Context) {
	if t.parker == nil {
		return
	}
	t.mu.Lock()
	keys := slices.Collect(maps.Keys(t.held))
	t.mu.Unlock()
	for _, k := range keys {
		f, err := t.bound(k)
		if err == nil {
			err = t.parker.Park(ctx, k.parked(), f)
			f.Close()
		}
		if err != nil && !isAbsent(err) {
			t.log.Warn("a published port is no longer reserved", "port", k, "error", err)
		}
	}
}

func allocated(k Key, who string) error {
	return fault.New(fault.Conflict, "Bind for %s failed: port is already allocated (%s)", netip.AddrPortFrom(k.IP, k.Port), who)
}

// Release gives ports up. What is not held is no error.
func (t *Table) Release(ctx context.Context, keys ...Key) {
	for _, k := range keys {
		t.mu.Lock()
		r := t.held[k]
		t.mu.Unlock()
		if r == nil {
			continue
		}
		if r.socket != nil {
			r.socket.Close()
		} else if t.parker != nil {
			if err := t.parker.Unpark(context.WithoutCancel(ctx), k.parked()); err != nil {
				t.log.Warn("a port's socket stays in the keeper", "port", k, "err", err)
			}
		}
		t.mu.Lock() // only now: who asks for the port next must be able to bind it
		if t.held[k] == r {
			t.drop(k)
		}
		t.mu.Unlock()
	}
}

// Move gives ports that one container holds to another.
func (t *Table) Move(from string, to Holder, keys ...Key) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		if r := t.held[k]; r == nil || r.holder.ID != from {
			return fault.New(fault.NotFound, "port %s is not published by the container", k)
		}
	}
	for _, k := range keys {
		t.held[k].holder = to
	}
	return nil
}

// Socket gives a descriptor of the socket that holds a port, for who serves it; the caller closes it. NotFound: nobody
// holds the port, or its protocol has no sockets here.
func (t *Table) Socket(ctx context.Context, k Key) (*os.File, error) {
	t.mu.Lock()
	r := t.held[k]
	t.mu.Unlock()
	switch {
	case r == nil:
		return nil, fault.New(fault.NotFound, "port %s is not reserved", k)
	case r.socket != nil:
		return sock.Again(r.socket)
	case t.parker == nil:
		return nil, fault.New(fault.NotFound, "port %s has no socket", k)
	}
	return t.parker.Take(ctx, k.parked())
}

// Rename follows a container's new name.
func (t *Table) Rename(id, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.held {
		if r.holder.ID == id {
			r.holder.Name = name
		}
	}
}

// Holder tells who holds a port.
func (t *Table) Holder(k Key) (Holder, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.held[k]
	if r == nil {
		return Holder{}, false
	}
	return r.holder, true
}

// Count is how many ports are held.
func (t *Table) Count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.held)
}

// Adopt takes up the reservations of containers that ran before this process: those whose sockets are parked are held as
// they are, the others are bound again, and what the keeper holds of nobody is given up. A port that somebody took in
// between is told as a warning: the container's rules lead its traffic to it all the same.
func (t *Table) Adopt(ctx context.Context, all map[Key]Holder) {
	parked := map[string]bool{}
	if t.parker != nil {
		names, err := t.parker.Parked(ctx)
		if err != nil {
			t.log.Warn("the keeper does not tell which ports it holds", "err", err)
		}
		for _, n := range names {
			if strings.HasPrefix(n, parkPrefix) {
				parked[n] = true
			}
		}
	}
	for k, h := range all {
		r := &reservation{holder: h}
		t.mu.Lock()
		t.put(k, r)
		t.mu.Unlock()
		if parked[k.parked()] {
			delete(parked, k.parked())
			continue
		}
		if err := t.bind(ctx, k, r); err != nil {
			t.log.Warn("a published port is not reserved any more", "port", k, "container", h.Name, "err", err)
		}
	}
	for name := range parked {
		if err := t.parker.Unpark(ctx, name); err != nil {
			t.log.Warn("a port's socket stays in the keeper", "name", name, "err", err)
		}
	}
}

// start is where the search in the ephemeral range begins: at random, then where it ended.
func (t *Table) start(first, last int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next < first || t.next > last {
		t.next = first + rand.IntN(last-first+1)
	}
	return t.next
}

func (t *Table) advance(p int) {
	t.mu.Lock()
	t.next = p
	t.mu.Unlock()
}

// ephemeral reads the range in which the host's kernel picks ports, as Docker does.
func ephemeral() (first, last int) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(b), &first, &last)
	}
	if err != nil || first < 1 || last > 65535 || first > last {
		return 49153, 65535
	}
	return first, last
}
