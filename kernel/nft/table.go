package nft

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Family says which packets a table sees.
type Family uint8

// The families, by their numbers in the kernel.
const (
	Inet   Family = unix.NFPROTO_INET // IPv4 and IPv6; with NAT chains since Linux 5.2
	IPv4   Family = unix.NFPROTO_IPV4
	IPv6   Family = unix.NFPROTO_IPV6
	Bridge Family = unix.NFPROTO_BRIDGE
)

// String gives nft's word for the family.
func (f Family) String() string {
	switch f {
	case Inet:
		return "inet"
	case IPv4:
		return "ip"
	case IPv6:
		return "ip6"
	case Bridge:
		return "bridge"
	}
	return "unknown"
}

// Table is a table and all in it.
type Table struct {
	Family Family
	Name   string
	Sets   []Set // sets and maps, in the order in which they print
	Chains []Chain
}

// Chain is a list of rules. A chain whose Hook is zero is reached by jumps only.
type Chain struct {
	Name  string
	Hook  Hook
	Rules []Rule
}

// Hook is where a base chain hangs. The policy is accept unless Drop.
type Hook struct {
	Type     ChainType
	Point    Point
	Priority int // chains of the same point run from the lowest to the highest
	Drop     bool
}

// ChainType is the kind of a base chain.
type ChainType string

// The types of base chains.
const (
	Filter ChainType = "filter"
	NAT    ChainType = "nat" // sees the first packet of a connection only
	Route  ChainType = "route"
)

// Point is where in a packet's way a base chain hangs, by the kernel's number for the families of IP and bridge.
type Point uint8

// The points of a packet's way.
const (
	Prerouting  Point = unix.NF_INET_PRE_ROUTING
	Input       Point = unix.NF_INET_LOCAL_IN
	Forward     Point = unix.NF_INET_FORWARD
	Output      Point = unix.NF_INET_LOCAL_OUT
	Postrouting Point = unix.NF_INET_POST_ROUTING
)

// String gives nft's word for the point.
func (p Point) String() string {
	names := [...]string{"prerouting", "input", "forward", "output", "postrouting"}
	if int(p) < len(names) {
		return names[p]
	}
	return "unknown"
}

// Rule is a list of expressions, all of which have to match for the last to act.
type Rule struct {
	Exprs   []Expr
	Comment string // at most 127 bytes are kept
}

// NewRule is a rule without a comment.
func NewRule(exprs ...Expr) Rule { return Rule{Exprs: exprs} }

// Commented gives the rule with a comment.
func (r Rule) Commented(text string) Rule { r.Comment = text; return r }

// Set is a set, or with Data a map, of elements whose keys have the types of Key, one or several in a row.
type Set struct {
	Name     string
	Key      []Type
	Data     []Type        // none: a set; {Verdict}: a verdict map; else what a statement reads from the map
	Interval bool          // keys may be ranges; they must not overlap. With several parts since Linux 5.6
	Dynamic  bool          // rules add elements
	Timeout  time.Duration // elements that rules add vanish after it; whole milliseconds
	Size     uint32        // most elements; 0: no limit
	Elements []Element
}

// Element is one member of a set.
type Element struct {
	Key     []Value
	Data    []Value // of a map, as many as its Data has types
	Verdict Expr    // of a verdict map: Accept, Drop, Return, Jump or Goto
	Comment string  // at most 127 bytes are kept
}

// ID gives the element's key as bytes: equal for elements of which a set can hold only one.
func (e Element) ID() string { return packed(e.Key, false) + packed(e.Key, true) }

// SameData reports whether two elements of one map lead to the same.
func (e Element) SameData(other Element) bool {
	return slices.Equal(e.Data, other.Data) && e.Verdict == other.Verdict
}

func join[T any](values []T, text func(T) string, between string) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = text(v)
	}
	return strings.Join(parts, between)
}
