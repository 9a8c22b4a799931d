package nft

import (
	"strconv"
	"strings"
	"time"
)

// String gives the table as `nft list table` does, and as `nft -f` takes it.
func (t Table) String() string {
	var blocks []string
	for _, s := range t.Sets {
		blocks = append(blocks, s.text())
	}
	for _, c := range t.Chains {
		blocks = append(blocks, c.text(t.Family))
	}
	return "table " + t.Family.String() + " " + t.Name + " {\n" + strings.Join(blocks, "\n") + "}\n"
}

func (c Chain) text(f Family) string {
	var b strings.Builder
	b.WriteString("\tchain " + c.Name + " {\n")
	if c.Hook != (Hook{}) {
		b.WriteString("\t\t" + c.Hook.text() + "\n")
	}
	for _, r := range c.Rules {
		b.WriteString("\t\t" + r.text(f) + "\n")
	}
	b.WriteString("\t}\n")
	return b.String()
}

func (h Hook) text() string {
	policy := "accept"
	if h.Drop {
		policy = "drop"
	}
	return "type " + string(h.Type) + " hook " + h.Point.String() + " priority " + h.priority() + "; policy " + policy + ";"
}

// priority gives nft's name of the nearest well known priority, where it is at most ten away.
func (h Hook) priority() string {
	names := []struct {
		name  string
		at    int
		point Point // where the name is known only; Forward for everywhere
	}{{"raw", -300, Forward}, {"mangle", -150, Forward}, {"dstnat", -100, Prerouting}, {"filter", 0, Forward}, {"security", 50, Forward}, {"srcnat", 100, Postrouting}}
	for _, n := range names {
		d := h.Priority - n.at
		if n.point != Forward && n.point != h.Point || d < -10 || d > 10 {
			continue
		}
		switch {
		case d == 0:
			return n.name
		case d < 0:
			return n.name + " - " + strconv.Itoa(-d)
		}
		return n.name + " + " + strconv.Itoa(d)
	}
	return strconv.Itoa(h.Priority)
}

func (s Set) text() string {
	var b strings.Builder
	kind, types := "set", join(s.Key, Type.String, " . ")
	if len(s.Data) > 0 {
		kind, types = "map", types+" : "+join(s.Data, Type.String, " . ")
	}
	b.WriteString("\t" + kind + " " + s.Name + " {\n\t\ttype " + types + "\n")
	if s.Size != 0 {
		b.WriteString("\t\tsize " + strconv.FormatUint(uint64(s.Size), 10) + "\n")
	}
	var flags []string
	if s.Interval {
		flags = append(flags, "interval")
	}
	if s.Dynamic {
		flags = append(flags, "dynamic")
	}
	if s.Timeout != 0 {
		flags = append(flags, "timeout")
	}
	if flags != nil {
		b.WriteString("\t\tflags " + strings.Join(flags, ",") + "\n")
	}
	if s.Timeout != 0 {
		b.WriteString("\t\ttimeout " + timeText(s.Timeout) + "\n")
	}
	if len(s.Elements) > 0 {
		b.WriteString("\t\telements = { " + join(s.Elements, func(e Element) string { return e.text(true) }, ",\n\t\t\t     ") + " }\n")
	}
	b.WriteString("\t}\n")
	return b.String()
}

// text gives the element; whole with its comment and data, else its key alone.
func (e Element) text(whole bool) string {
	s := join(e.Key, Value.String, " . ")
	if !whole {
		return s
	}
	if e.Comment != "" {
		s += " comment " + quote(cut(e.Comment))
	}
	if e.Verdict != nil {
		return s + " : " + e.Verdict.text(Inet)
	}
	if len(e.Data) > 0 {
		s += " : " + join(e.Data, Value.String, " . ")
	}
	return s
}

// timeText gives a duration in nft's units.
func timeText(d time.Duration) string {
	units := []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}
	s := ""
	for _, u := range units {
		if n := d / u.size; n > 0 {
			s += strconv.Itoa(int(n)) + u.name
			d -= n * u.size
		}
	}
	return s
}
