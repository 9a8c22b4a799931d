package launch

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// String prints the program, one system call a line, as strace would. A line ends in what follows
// from the result: "= $root" keeps it, "else ENOENT → 3" skips three lines on ENOENT, "then → 2"
// skips two on success.
func (p *Program) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# prepare, in the launcher\n")
	p.section(&b, p.Prepare)
	fmt.Fprintf(&b, "# clone\n%s\n# child\n", p.cloneLine())
	p.section(&b, p.Child)
	return b.String()
}

func (p *Program) section(b *strings.Builder, steps []Step) {
	what := ""
	for i := range steps {
		st := &steps[i]
		if st.What != what {
			what = st.What
			fmt.Fprintf(b, "  // %s\n", what)
		}
		b.WriteString(p.call(st))
		if st.Out != NoSlot {
			b.WriteString(" = " + p.slot(st.Out))
		}
		if st.Positive {
			b.WriteString(" > 0")
		}
		if st.OnOK != 0 {
			fmt.Fprintf(b, " then → %d", st.OnOK)
		}
		for _, r := range st.OnErr {
			fmt.Fprintf(b, " else %s", errnoName(r.Errno))
			if r.Skip != 0 {
				fmt.Fprintf(b, " → %d", r.Skip)
			}
		}
		b.WriteByte('\n')
	}
}

func (p *Program) cloneLine() string {
	c := &p.Clone
	var notes []string
	if c.Flags&unix.CLONE_INTO_CGROUP != 0 {
		notes = append(notes, "cgroup="+p.slot(c.Cgroup))
	}
	if c.PidNS != NoSlot {
		notes = append(notes, "pidns="+p.slot(c.PidNS))
	}
	if c.Maps != nil {
		notes = append(notes, "uid_map="+strconv.Quote(c.Maps.UID), "gid_map="+strconv.Quote(c.Maps.GID))
		if c.Maps.DenySetgroups {
			notes = append(notes, "setgroups=deny")
		}
	}
	how := "pivot"
	switch {
	case c.Covered:
		how = "covered"
	case c.Views:
		how = "views"
	}
	if c.Waits {
		how += ", waits"
	}
	return strings.TrimSpace(fmt.Sprintf("clone3(%s) [%s] %s", cloneFlags(c.Flags), how, strings.Join(notes, " ")))
}

func (p *Program) slot(s Slot) string {
	if int(s) < len(p.Slots) && s >= 0 {
		return "$" + p.Slots[s]
	}
	return fmt.Sprintf("$%d", s)
}

// call prints one step's system call.
func (p *Program) call(st *Step) string {
	form, ok := forms()[st.Nr]
	if !ok {
		form = callForm{name: fmt.Sprintf("syscall_%d", st.Nr), args: "xxxxxx"}
	}
	args := make([]string, 0, len(form.args))
	for i, kind := range form.args {
		args = append(args, p.arg(&st.Args[i], kind))
	}
	return form.name + "(" + strings.Join(args, ", ") + ")"
}

func (p *Program) arg(a *Arg, kind rune) string {
	switch a.Kind {
	case ArgSlot:
		return p.slot(Slot(a.N))
	case ArgSlotAddress:
		return "&" + p.slot(Slot(a.N))
	case ArgData:
		return p.data(a.D, kind)
	}
	if f := numbers()[kind]; f != nil {
		return f(a.N)
	}
	return strconv.FormatInt(int64(a.N), 10)
}

// data prints what a pointer points to.
func (p *Program) data(a *Data, kind rune) string {
	le := binary.LittleEndian
	switch {
	case kind == 's':
		return strconv.Quote(strings.TrimSuffix(string(a.Bytes), "\x00"))
	case kind == 'v':
		ss := make([]string, len(a.Ptrs))
		for i, ptr := range a.Ptrs {
			ss[i] = strconv.Quote(strings.TrimSuffix(string(ptr.To), "\x00"))
		}
		return "[" + strings.Join(ss, ", ") + "]"
	case kind == 'H' && len(a.Bytes) == 24: // struct open_how
		s := openFlags(le.Uint64(a.Bytes))
		if mode := le.Uint64(a.Bytes[8:]); mode != 0 {
			s += fmt.Sprintf(", 0%o", mode)
		}
		return "{" + s + ", " + bits(le.Uint64(a.Bytes[16:]), resolveBits) + "}"
	case kind == 'A' && len(a.Bytes) == 32: // struct mount_attr
		s := "set=" + bits(le.Uint64(a.Bytes), attrBits)
		if clr := le.Uint64(a.Bytes[8:]); clr != 0 {
			s += ", clear=" + bits(clr, attrBits)
		}
		if prop := le.Uint64(a.Bytes[16:]); prop != 0 {
			s += ", " + bits(prop, mountBits)
		}
		for _, f := range a.Fill {
			s += ", userns=" + p.slot(f.Slot)
		}
		return "{" + s + "}"
	case kind == 'R' && len(a.Bytes) == 16: // struct rlimit64
		return "{" + limit(le.Uint64(a.Bytes)) + ", " + limit(le.Uint64(a.Bytes[8:])) + "}"
	case kind == 'C' && len(a.Bytes) == 24: // struct __user_cap_data_struct[2]
		pair := func(lo, hi int) uint64 { return uint64(le.Uint32(a.Bytes[lo:])) | uint64(le.Uint32(a.Bytes[hi:]))<<32 }
		return fmt.Sprintf("{effective=%#x, permitted=%#x, inheritable=%#x}", pair(0, 12), pair(4, 16), pair(8, 20))
	case kind == 'F': // struct sock_fprog
		return fmt.Sprintf("{%d instructions}", le.Uint16(a.Bytes))
	case kind == 'G': // gid_t[]
		var ss []string
		for i := 0; i+4 <= len(a.Bytes); i += 4 {
			ss = append(ss, strconv.FormatUint(uint64(le.Uint32(a.Bytes[i:])), 10))
		}
		return "[" + strings.Join(ss, ", ") + "]"
	case kind == 'N' && len(a.Bytes) >= 8: // struct clone_args
		return "{" + cloneFlags(le.Uint64(a.Bytes)) + "}"
	case kind == 'b':
		return "buf"
	}
	return fmt.Sprintf("{%d bytes}", len(a.Bytes))
}

func limit(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

func errnoName(e unix.Errno) string {
	if s := unix.ErrnoName(e); s != "" {
		return s
	}
	return strconv.Itoa(int(e))
}
