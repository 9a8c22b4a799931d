package access

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/base/atomicfile"
	"berth/base/fault"
)

// Sockets keeps the access sockets of one engine. Its methods may be called from many goroutines.
type Sockets struct {
	cfg Config

	mu    sync.Mutex // guards all below; held over the making and ending of a socket, which is seldom
	open  map[string]*socket
	ended bool
}

// Config says where sockets and their definitions live, and who serves them.
type Config struct {
	Dir     string // definitions: DATA-ROOT/access
	Run     string // sockets: EXEC-ROOT/access
	Fixed   []Policy
	Serve   func(l net.Listener, p *Policy) (stop func())
	Log     *slog.Logger
	Now     func() time.Time
	Expired func(p *Policy) // told after a socket went; may be nil
}

// Socket is an access socket as it is told of.
type Socket struct {
	Policy
	Path  string `json:"path"`            // of the socket; "" where it could not be made
	Fixed bool   `json:"fixed,omitempty"` // it comes from daemon.json
	Error string `json:"error,omitempty"` // why there is no socket
}

type socket struct {
	Socket
	stop  func()
	timer *time.Timer
}

// Open makes the sockets of all definitions, those of daemon.json included. A definition that cannot be served is kept, told, and logged:
// the engine starts nevertheless.
func Open(cfg Config) (*Sockets, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Sockets{cfg: cfg, open: map[string]*socket{}}
	if err := errors.Join(os.MkdirAll(cfg.Dir, 0o700), os.MkdirAll(cfg.Run, 0o711)); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "making the directories of access sockets")
	}
	if err := atomicfile.Sweep(cfg.Dir); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "access sockets")
	}
	s.sweepSockets()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range cfg.Fixed {
		p := cfg.Fixed[i]
		if s.open[p.Name] != nil {
			return nil, fault.New(fault.Invalid, "access: %q is defined twice", p.Name)
		}
		s.restore(p, true)
	}
	files, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "access sockets")
	}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok {
			continue
		}
		p, err := readPolicy(filepath.Join(cfg.Dir, f.Name()))
		if err == nil && p.Name != name {
			err = fault.New(fault.Invalid, "the definition in %s is of %q", f.Name(), p.Name)
		}
		switch {
		case err != nil:
			cfg.Log.Error("an access socket's definition cannot be read: there is no such socket", "file", f.Name(), "error", err)
		case s.open[name] != nil:
			cfg.Log.Warn("an access socket is defined in daemon.json as well: that counts", "name", name)
		default:
			s.restore(p, false)
		}
	}
	return s, nil
}

// sweepSockets removes what an engine that was killed left: nobody listens there.
func (s *Sockets) sweepSockets() {
	left, _ := filepath.Glob(filepath.Join(s.cfg.Run, "*.sock*"))
	for _, f := range left {
		if info, err := os.Lstat(f); err == nil && info.Mode()&fs.ModeSocket != 0 {
			_ = os.Remove(f)
		}
	}
}

// version is that of definitions on disk. A field that is new and may be left out makes none: a reader that does not know a field refuses
// the definition, since what it leaves out could be a restriction.
const version = 1

// definition is a policy as it stands in DATA-ROOT/access/NAME.json.
type definition struct {
	Version int `json:"version"`
	Policy
}

func readPolicy(file string) (Policy, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Policy{}, err
	}
	var d definition
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return Policy{}, err
	}
	if d.Version != version {
		return Policy{}, fault.New(fault.Invalid, "it has version %d, and this engine reads version %d", d.Version, version)
	}
	return d.Policy, d.Check()
}

// restore makes a socket at the engine's start; mu is held.
func (s *Sockets) restore(p Policy, fixed bool) {
	if p.Expired(s.cfg.Now()) {
		s.cfg.Log.Info("an access socket's time was over before the engine started", "name", p.Name)
		if err := s.forget(p.Name, fixed); err != nil {
			s.cfg.Log.Error("an access socket's definition could not be removed", "name", p.Name, "error", err)
		}
		return
	}
	if _, err := s.begin(p, fixed); err != nil {
		s.cfg.Log.Error("an access socket could not be made", "name", p.Name, "error", err)
		s.open[p.Name] = &socket{Socket: Socket{Policy: p, Fixed: fixed, Error: err.Error()}}
	}
}

// begin makes a socket and has it served; mu is held.
func (s *Sockets) begin(p Policy, fixed bool) (*socket, error) {
	path := filepath.Join(s.cfg.Run, p.Name+".sock")
	if err := checkSocketPath(path); err != nil {
		return nil, err
	}
	l, err := p.listen(path)
	if err != nil {
		return nil, err
	}
	one := &socket{Socket: Socket{Policy: p, Path: path, Fixed: fixed}}
	one.stop = s.cfg.Serve(l, &one.Policy)
	if !p.Expires.IsZero() {
		one.timer = time.AfterFunc(p.Expires.Sub(s.cfg.Now()), func() { s.expire(one) })
	}
	s.open[p.Name] = one
	return one, nil
}

// Create makes a socket that outlives the engine's restarts, and gives its path.
func (s *Sockets) Create(p Policy) (Socket, error) {
	p.Created = s.cfg.Now().UTC().Truncate(time.Second)
	if err := p.Check(); err != nil {
		return Socket{}, err
	}
	if p.Expired(p.Created) {
		return Socket{}, fault.New(fault.Invalid, "access %q: %s is over already", p.Name, p.Expires.Format(time.RFC3339))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return Socket{}, fault.New(fault.Unavailable, "the engine is stopping")
	case s.open[p.Name] != nil:
		return Socket{}, fault.New(fault.Conflict, "access %q exists already: remove it first", p.Name)
	}
	data, err := json.MarshalIndent(definition{version, p}, "", "  ")
	if err != nil {
		return Socket{}, err
	}
	one, err := s.begin(p, false)
	if err != nil {
		return Socket{}, err
	}
	if err := atomicfile.Write(s.file(p.Name), append(data, '\n'), 0o600); err != nil {
		s.end(one)
		return Socket{}, fault.Wrap(fault.Internal, err, "access %q", p.Name)
	}
	return one.Socket, nil
}

func (s *Sockets) file(name string) string { return filepath.Join(s.cfg.Dir, name+".json") }

// Get gives one socket.
func (s *Sockets) Get(name string) (Socket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.open[name]; one != nil {
		return one.Socket, nil
	}
	return Socket{}, fault.New(fault.NotFound, "no such access socket: %s", name)
}

// List gives all sockets by name.
func (s *Sockets) List() []Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Socket{}
	for _, name := range slices.Sorted(maps.Keys(s.open)) {
		out = append(out, s.open[name].Socket)
	}
	return out
}

// Remove ends a socket for good: it is gone, and so are its clients' connections.
func (s *Sockets) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.open[name]
	switch {
	case one == nil:
		return fault.New(fault.NotFound, "no such access socket: %s", name)
	case one.Fixed:
		return fault.New(fault.Conflict, "access %q stands in the engine's configuration: take it out there", name)
	}
	// The definition first: a socket without one is gone at the next start, the other way round it would come back.
	if err := s.forget(name, false); err != nil {
		return fault.Wrap(fault.Internal, err, "access %q", name)
	}
	s.end(one)
	return nil
}

func (s *Sockets) forget(name string, fixed bool) error {
	if fixed {
		return nil
	}
	return atomicfile.Remove(s.file(name))
}

// end closes a socket; mu is held.
func (s *Sockets) end(one *socket) {
	delete(s.open, one.Name)
	if one.timer != nil {
		one.timer.Stop()
	}
	if one.Path != "" {
		_ = os.Remove(one.Path)
	}
	if one.stop != nil {
		one.stop()
	}
}

// expire ends a socket whose time is over.
func (s *Sockets) expire(one *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[one.Name] != one {
		return
	}
	if err := s.forget(one.Name, one.Fixed); err != nil {
		s.cfg.Log.Error("an access socket's definition could not be removed", "name", one.Name, "error", err)
	}
	s.end(one)
	s.cfg.Log.Info("an access socket's time is over", "name", one.Name)
	if s.cfg.Expired != nil {
		s.cfg.Expired(&one.Policy)
	}
}

// Close ends all sockets and keeps their definitions.
func (s *Sockets) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, one := range s.open {
		s.end(one)
	}
}
