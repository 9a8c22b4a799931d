package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"berth/base/fault"
)

// Env is the environment variable that main hands to Arm.
const Env = "BERTH_FAILPOINTS"

var armed atomic.Pointer[armedSet] // nil: all off

type armedSet struct {
	points map[string]*point
	every  *point   // "*", or nil
	counts sync.Map // of every: name to *atomic.Int64
}

type point struct {
	action string // kill, error, sleep or note
	sleep  time.Duration
	file   string // of note
	only   int64  // the hit that acts, counted from 1; 0: every hit
	hits   atomic.Int64
}

// Hit is a place where the process may be made to die, fail or wait. It gives nil unless the point is
// armed with "error"; a point that cannot fail ignores the result.
func Hit(name string) error {
	set := armed.Load()
	if set == nil {
		return nil
	}
	if set.every != nil {
		n, _ := set.counts.LoadOrStore(name, new(atomic.Int64))
		if err := set.every.hit(name, n.(*atomic.Int64)); err != nil {
			return err
		}
	}
	p := set.points[name]
	if p == nil {
		return nil
	}
	return p.hit(name, &p.hits)
}

func (p *point) hit(name string, hits *atomic.Int64) error {
	if n := hits.Add(1); p.only != 0 && n != p.only {
		return nil
	}
	switch p.action {
	case "kill":
		os.Stderr.WriteString("failpoint " + name + " kills this process\n") // no buffer: what is to be tested comes right after
		self, _ := os.FindProcess(os.Getpid())
		self.Kill()
		select {} // SIGKILL arrives before any other line of ours runs
	case "sleep":
		time.Sleep(p.sleep)
		return nil
	case "note":
		p.note(name)
		return nil
	}
	return fault.New(fault.Internal, "failpoint %s", name)
}

// note appends the name to the file, one write a line: several processes may note in the same one.
func (p *point) note(name string) {
	f, err := os.OpenFile(p.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return // a full disk, say: what is tested goes on
	}
	defer f.Close()
	f.WriteString(name + "\n")
}

// Arm replaces the armed points by those of spec; "" turns all off. On an error nothing changes.
func Arm(spec string) error {
	set, err := parse(spec)
	if err != nil {
		return err
	}
	if len(set) == 0 {
		armed.Store(nil)
		return nil
	}
	every := set["*"]
	delete(set, "*")
	armed.Store(&armedSet{points: set, every: every})
	return nil
}

func parse(spec string) (map[string]*point, error) {
	set := map[string]*point{}
	for _, one := range strings.Split(spec, ",") {
		one = strings.TrimSpace(one)
		if one == "" {
			continue
		}
		name, what, ok := strings.Cut(one, "=")
		if !ok || name == "" {
			return nil, bad(one, "want name=action")
		}
		p, err := parseAction(what)
		if err != nil {
			return nil, bad(one, err.Error())
		}
		set[name] = p
	}
	return set, nil
}

func parseAction(what string) (*point, error) {
	words := strings.Split(what, ":")
	p := &point{action: words[0]}
	words = words[1:]
	switch p.action {
	case "kill", "error":
	case "sleep":
		if len(words) == 0 {
			return nil, fmt.Errorf("sleep wants a duration, as in sleep:10ms")
		}
		d, err := time.ParseDuration(words[0])
		if err != nil || d < 0 {
			return nil, fmt.Errorf("%q is no duration", words[0])
		}
		p.sleep, words = d, words[1:]
	case "note":
		if len(words) == 0 || words[0] == "" {
			return nil, fmt.Errorf("note wants a file, as in note:/tmp/passed")
		}
		p.file, words = words[0], words[1:]
	default:
		return nil, fmt.Errorf("action %q is none of kill, error, sleep, note", p.action)
	}
	if len(words) > 1 {
		return nil, fmt.Errorf("too many parts")
	}
	if len(words) == 1 {
		n, err := strconv.ParseInt(words[0], 10, 64)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no count from 1", words[0])
		}
		p.only = n
	}
	return p, nil
}

func bad(point, why string) error {
	return fault.New(fault.Invalid, "failpoint %q: %s", point, why)
}
