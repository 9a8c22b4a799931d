package userns

import (
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/kernel/idmap"
)

// Kind is what a container asks for.
type Kind int

// The kinds of Mode.
const (
	Default   Kind = iota // what the daemon does for all
	Host                  // the engine's own user namespace
	Auto                  // a range of its own
	Container             // that of another container
)

// Mode is --userns, read.
type Mode struct {
	Kind Kind
	Ref  string // Container: name or id
	Auto Wish   // Auto
}

// Wish says what a range shall be like.
type Wish struct {
	Size   uint32    // ids; 0: DefaultSize
	Users  idmap.Map // ids that shall have these of the host's
	Groups idmap.Map
}

// DefaultSize is how many ids a container gets: all that 16 bits can tell, which is what images count on (nobody is
// 65534).
const DefaultSize = 65536

// Parse reads "", "private", "host", "auto[:size=N,uidmapping=I:O:N,gidmapping=I:O:N]" or "container:REF". In a mapping the parts may
// also be separated by "@" and "+", as the comma separates options. Anything else is refused in Docker's words.
func Parse(text string) (Mode, error) {
	kind, rest, has := strings.Cut(text, ":")
	switch {
	case text == "" || text == "private":
		return Mode{}, nil
	case text == "host":
		return Mode{Kind: Host}, nil
	case kind == "container" && rest != "":
		return Mode{Kind: Container, Ref: rest}, nil
	case kind == "auto" && (!has || rest != ""):
		w, err := parseWish(rest)
		return Mode{Kind: Auto, Auto: w}, err
	case kind == "keep-id", kind == "nomap":
		return Mode{}, fault.New(fault.Invalid, "invalid USER mode: %s: it is for engines that run as an ordinary user; use auto or host", kind)
	}
	return Mode{}, fault.New(fault.Invalid, "invalid USER mode: %q", text)
}

func parseWish(text string) (w Wish, err error) {
	if text == "" {
		return w, nil
	}
	for word := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "size":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil || n == 0 || n >= 1<<31 {
				return w, fault.New(fault.Invalid, "invalid USER mode: auto: size=%s: give the number of ids, such as %d", value, DefaultSize)
			}
			w.Size = uint32(n)
		case "uidmapping", "gidmapping":
			m, err := idmap.Parse(value)
			if err != nil {
				return w, fault.In(err, "invalid USER mode: auto: %s", key)
			}
			to := &w.Users
			if key == "gidmapping" {
				to = &w.Groups
			}
			*to = append(*to, m...)
			if err := to.Check(); err != nil {
				return w, fault.In(err, "invalid USER mode: auto: %s", key)
			}
		default:
			return w, fault.New(fault.Invalid, "invalid USER mode: auto takes size=, uidmapping= and gidmapping=, not %q", word)
		}
	}
	for _, m := range []idmap.Map{w.Users, w.Groups} {
		if _, root := m.In(0); root {
			return w, fault.New(fault.Invalid, "invalid USER mode: auto: a mapping gives the container the host's root: use --userns=host where that is meant")
		}
	}
	return w, nil
}
