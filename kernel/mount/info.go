package mount

import (
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Info is something that is mounted: one line of /proc/PID/mountinfo (see proc_pid_mountinfo(5)).
type Info struct {
	ID, Parent   int
	Major, Minor int
	Root         string   // what of the file system is shown
	Point        string   // where
	Options      string   // of this mount: "rw,nosuid"
	Fields       []string // "shared:5", "master:3", "propagate_from:2", "unbindable"
	Type         string
	Source       string
	Super        string // options of the file system: "rw,size=65536k"
}

// Self lists this process's mounts, in the kernel's order: a mount comes after the one it covers. keep
// chooses which are kept (nil keeps all); it must not hold on to its argument.
func Self(keep func(*Info) bool) ([]Info, error) { return ReadFile("/proc/self/mountinfo", keep) }

// ReadFile lists the mounts of a mountinfo file, such as another process's.
func ReadFile(path string, keep func(*Info) bool) ([]Info, error) {
	b, err := readAll(path)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "read %s", path)
	}
	return Parse(b, keep)
}

// Parse reads mountinfo's text. A line that does not have its form is an error that shows it.
func Parse(text []byte, keep func(*Info) bool) ([]Info, error) {
	var list []Info
	for rest := string(text); rest != ""; {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		if line == "" {
			continue
		}
		var i Info
		if !i.parse(line) {
			return nil, fault.New(fault.Internal, "not a line of mountinfo: %q", line)
		}
		if keep == nil || keep(&i) {
			list = append(list, i)
		}
	}
	return list, nil
}

// parse reads
//
//	36 35 98:0 /root /mnt rw,noatime shared:1 master:2 - ext4 /dev/sda rw,errors=continue
//	id parent maj:min root point options [fields]      - type source super
func (i *Info) parse(line string) bool {
	next := func() string {
		var f string
		f, line, _ = strings.Cut(line, " ")
		return f
	}
	var ok bool
	if i.ID, ok = number(next()); !ok {
		return false
	}
	if i.Parent, ok = number(next()); !ok {
		return false
	}
	major, minor, ok := strings.Cut(next(), ":")
	if !ok {
		return false
	}
	if i.Major, ok = number(major); !ok {
		return false
	}
	if i.Minor, ok = number(minor); !ok {
		return false
	}
	i.Root, i.Point, i.Options = unescape(next()), unescape(next()), next()
	for {
		if line == "" {
			return false
		}
		f := next()
		if f == "-" {
			break
		}
		i.Fields = append(i.Fields, f)
	}
	// The source may be empty (two blanks) and the kernel does not escape all of it in the super options.
	i.Type = unescape(next())
	source, super, ok := strings.Cut(line, " ")
	if !ok {
		return false
	}
	i.Source, i.Super = unescape(source), super
	return i.Root != "" && i.Point != "" && i.Type != ""
}

// Below lists the mounts at the path and under it, the deepest first: the order to unmount them in.
func Below(list []Info, path string) []Info {
	var out []Info
	for n := len(list) - 1; n >= 0; n-- {
		if p := list[n].Point; p == path || path == "/" || strings.HasPrefix(p, path+"/") {
			out = append(out, list[n])
		}
	}
	return out
}

func number(s string) (int, bool) {
	if s == "" || len(s) > 10 {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// unescape undoes the kernel's \040 writing of blanks, tabs, newlines, # and backslashes.
func unescape(s string) string {
	at := strings.IndexByte(s, '\\')
	if at < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)), s[:at]...)
	for i := at; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1], '3') && octal(s[i+2], '7') && octal(s[i+3], '7') {
			b = append(b, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func octal(c, highest byte) bool { return c >= '0' && c <= highest }

// readAll reads a /proc file whole. The kernel may show it torn when mounts change between two reads, so
// the buffer is large and grows by doubling.
func readAll(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 16<<10)
	for {
		if len(b) == cap(b) {
			b = append(b, make([]byte, cap(b))...)[:len(b)]
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, err
		case n == 0:
			return b, nil
		default:
			b = b[:len(b)+n]
		}
	}
}
