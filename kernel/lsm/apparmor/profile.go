package apparmor

import (
	"os"
	"path/filepath"
	"strings"

	"berth/base/fault"
)

// Profile is the default profile as a value: what varies between machines. Text prints it in the
// language of apparmor.d(5).
type Profile struct {
	Name     string
	Tunables bool     // the machine has tunables/global, which says where /proc is
	Base     bool     // the machine has abstractions/base
	Senders  []string // profiles beside the container's own that may send it signals
}

// profile gives the default profile for this machine under a name. It lets those signal a container who stop and
// kill it: anything unconfined, the engine itself if it runs in a profile, and the runtimes of other engines that
// share the profile by its name.
func (h host) profile(name string) Profile {
	p := Profile{Name: name, Tunables: h.has("tunables/global"), Base: h.has("abstractions/base"), Senders: []string{Unconfined, "runc", "crun"}}
	if own := h.current(); own != Unconfined {
		p.Senders = append(p.Senders, own)
	}
	return p
}

func (h host) has(include string) bool {
	_, err := os.Stat(filepath.Join(h.root, "etc/apparmor.d", include))
	return err == nil
}

// check refuses names that would need quoting in the profile's text.
func (p Profile) check() error {
	if p.Name == "" || strings.IndexFunc(p.Name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r))
	}) >= 0 {
		return fault.New(fault.Invalid, "invalid AppArmor profile name %q: use letters, digits, '-', '_' and '.'", p.Name)
	}
	return nil
}

// Text prints the profile. It allows what a container may do anyway, and denies what namespaces and
// capabilities leave open: mounting, writing to the parts of /proc and /sys that belong to the whole
// machine, looking into processes outside.
func (p Profile) Text() string {
	var b strings.Builder
	if p.Tunables {
		b.WriteString("#include <tunables/global>\n")
	} else {
		b.WriteString("@{PROC}=/proc/\n")
	}
	b.WriteString("\nprofile " + p.Name + " flags=(attach_disconnected,mediate_deleted) {\n")
	if p.Base {
		b.WriteString("  #include <abstractions/base>\n\n")
	}
	b.WriteString("  # Other means decide on these: namespaces, capabilities, file modes.\n  network,\n  capability,\n  file,\n  umount,\n\n")
	b.WriteString("  # Signals come from whoever stops containers, and from inside.\n")
	for _, s := range p.Senders {
		b.WriteString("  signal (receive) peer=" + quote(s) + ",\n")
	}
	b.WriteString("  signal (send, receive) peer=" + p.Name + ",\n")
	b.WriteString("  ptrace (trace, read, tracedby, readby) peer=" + p.Name + ",\n")
	b.WriteString(denials)
	b.WriteString("}\n")
	return b.String()
}

// denials are the rules that all machines share. AppArmor's patterns have no "all but": what is
// excepted is spelt letter by letter, so that only numbers (a process's own files) and sys/kernel/shm*
// stay writable below /proc, and only fs/cgroup below /sys.
const denials = `
  deny mount,

  # /proc: files of the machine itself, then directories that are neither a process nor sys,
  # then sys but for kernel/shm*.
  deny @{PROC}/* w,
  deny @{PROC}/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/** w,
  deny @{PROC}/sys/[^k]** w,
  deny @{PROC}/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny @{PROC}/sysrq-trigger rwklx,
  deny @{PROC}/kcore rwklx,

  # /sys: everything but fs/cgroup; some of it is not even for reading.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
`

// quote puts a profile's name into quotes where the language needs them, and takes the meaning from
// pattern characters.
func quote(name string) string {
	var b strings.Builder
	for _, r := range name {
		if strings.ContainsRune(`*?[]{}^"\@`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	if strings.ContainsAny(name, " \t,()=\"/#") {
		return `"` + b.String() + `"`
	}
	return b.String()
}
