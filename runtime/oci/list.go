package oci

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// state prints one container's state.
func (t *tool) state(f *flagSet) (int, error) {
	c, err := t.load(f.arg(0))
	if err != nil {
		return 1, err
	}
	_, err = t.out.Write(c.stateText("\n  ", "\n"))
	return 0, err
}

// stateText is a container's state as JSON, with runc's members beyond the specification's. Each
// member begins with sep and the whole ends with end before the brace.
func (c *container) stateText(sep, end string) []byte {
	s, pid := c.status(), c.rec.PID
	if s == stopped {
		pid = 0
	}
	colon := ": "
	if end == "" {
		colon = ":"
	}
	b := append(make([]byte, 0, 1024), '{')
	first := true
	key := func(name string) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(appendJSON(append(b, sep...), name), colon...), ""...)
	}
	text := func(name, value string) {
		key(name)
		b = appendJSON(b, value)
	}
	text("ociVersion", c.rec.OCIVersion)
	text("id", c.rec.ID)
	key("pid")
	b = strconv.AppendInt(b, int64(pid), 10)
	text("status", string(s))
	text("bundle", c.rec.Bundle)
	text("rootfs", c.rec.Rootfs)
	text("created", c.rec.Created.UTC().Format(time.RFC3339Nano))
	if len(c.rec.Annotations) > 0 {
		key("annotations")
		b = appendTextMap(b, c.rec.Annotations)
	}
	text("owner", c.owner())
	return append(append(b, end...), '}')
}

// owner gives the name of the user whose container it is, or #uid.
func (c *container) owner() string {
	var st unix.Stat_t
	if unix.Stat(c.dir, &st) != nil {
		return ""
	}
	uid := strconv.Itoa(int(st.Uid))
	data, err := readFile("/etc/passwd")
	if err != nil {
		return "#" + uid
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if p := strings.SplitN(line, ":", 4); len(p) == 4 && p[2] == uid {
			return p[0]
		}
	}
	return "#" + uid
}

// list prints all containers below the root.
func (t *tool) list(f *flagSet) (int, error) {
	format := f.text("format")
	if format != "table" && format != "json" {
		return 1, fault.New(fault.Invalid, "invalid format option")
	}
	ids, err := t.ids()
	if err != nil {
		return 1, err
	}
	var all []*container
	for _, id := range ids {
		c, err := t.load(id)
		if err == errNotExist {
			continue // in the making, or just deleted
		}
		if err != nil {
			fmt.Fprintf(t.err, "load container %s: %v\n", id, err)
			continue
		}
		all = append(all, c)
	}
	switch {
	case f.bool("quiet"):
		for _, c := range all {
			fmt.Fprintln(t.out, c.id)
		}
	case format == "json":
		_, err = t.out.Write(listJSON(all))
	default:
		err = t.table(all)
	}
	return 0, err
}

func listJSON(all []*container) []byte {
	if len(all) == 0 {
		return []byte("null\n") // runc prints Go's nil slice
	}
	b := []byte{'['}
	for i, c := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, c.stateText("", "")...)
	}
	return append(b, "]\n"...)
}

func (t *tool) table(all []*container) error {
	w := tabwriter.NewWriter(t.out, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, c := range all {
		s, pid := c.status(), c.rec.PID
		if s == stopped {
			pid = 0
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", c.id, pid, s, c.rec.Bundle, c.rec.Created.UTC().Format(time.RFC3339Nano), c.owner())
	}
	return w.Flush()
}
