package mount

import (
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Options is what a mount's option words mean to the kernel.
type Options struct {
	// Flags are MS_* for mount(2): MS_RDONLY, MS_NOSUID …, and MS_BIND, MS_REC, MS_REMOUNT.
	Flags uintptr
	// Cleared are the flags that a word turned off ("rw", "suid"): a bind keeps its source's flags except
	// these and Flags.
	Cleared uintptr
	// Propagation are MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE, each perhaps with MS_REC, in the
	// order given: each is a mount(2) of its own.
	Propagation []uintptr
	// RecSet and RecClear are MOUNT_ATTR_* for mount_setattr(AT_RECURSIVE): "rro", "rnosuid" … (Linux 5.12).
	RecSet, RecClear uint64
	// Data are the words for the file system itself, joined with commas: "size=64m,mode=1777".
	Data string
	// TmpCopyUp asks for a tmpfs that starts with what the covered directory holds.
	TmpCopyUp bool
	// IDMap and IDMapRec ask for an id-mapped mount, of the mount alone or of the whole tree (Linux 5.12).
	IDMap, IDMapRec bool
}

// word is one option word's meaning.
type word struct {
	clear bool
	flag  uintptr // MS_*
	rec   uint64  // MOUNT_ATTR_* of a recursive word; its access-time words replace each other
	kind  kind
}

type kind uint8

const (
	plain kind = iota
	propagation
	recursive
	recursiveTime // one of the exclusive access-time settings
	special
)

// words is every option word that is not the file system's own. It is a function over a switch, not a
// map, so that it costs nothing at start.
func lookup(name string) (word, bool) {
	switch name {
	case "defaults":
		return word{}, true
	case "ro":
		return word{flag: unix.MS_RDONLY}, true
	case "rw":
		return word{clear: true, flag: unix.MS_RDONLY}, true
	case "nosuid":
		return word{flag: unix.MS_NOSUID}, true
	case "suid":
		return word{clear: true, flag: unix.MS_NOSUID}, true
	case "nodev":
		return word{flag: unix.MS_NODEV}, true
	case "dev":
		return word{clear: true, flag: unix.MS_NODEV}, true
	case "noexec":
		return word{flag: unix.MS_NOEXEC}, true
	case "exec":
		return word{clear: true, flag: unix.MS_NOEXEC}, true
	case "sync":
		return word{flag: unix.MS_SYNCHRONOUS}, true
	case "async":
		return word{clear: true, flag: unix.MS_SYNCHRONOUS}, true
	case "dirsync":
		return word{flag: unix.MS_DIRSYNC}, true
	case "mand":
		return word{flag: unix.MS_MANDLOCK}, true
	case "nomand":
		return word{clear: true, flag: unix.MS_MANDLOCK}, true
	case "silent":
		return word{flag: unix.MS_SILENT}, true
	case "loud":
		return word{clear: true, flag: unix.MS_SILENT}, true
	case "iversion":
		return word{flag: unix.MS_I_VERSION}, true
	case "noiversion":
		return word{clear: true, flag: unix.MS_I_VERSION}, true
	case "lazytime":
		return word{flag: unix.MS_LAZYTIME}, true
	case "nolazytime":
		return word{clear: true, flag: unix.MS_LAZYTIME}, true
	case "acl":
		return word{flag: unix.MS_POSIXACL}, true
	case "noacl":
		return word{clear: true, flag: unix.MS_POSIXACL}, true
	case "nosymfollow":
		return word{flag: unix.MS_NOSYMFOLLOW}, true
	case "symfollow":
		return word{clear: true, flag: unix.MS_NOSYMFOLLOW}, true
	case "noatime":
		return word{flag: unix.MS_NOATIME}, true
	case "atime":
		return word{clear: true, flag: unix.MS_NOATIME}, true
	case "nodiratime":
		return word{flag: unix.MS_NODIRATIME}, true
	case "diratime":
		return word{clear: true, flag: unix.MS_NODIRATIME}, true
	case "relatime":
		return word{flag: unix.MS_RELATIME}, true
	case "norelatime":
		return word{clear: true, flag: unix.MS_RELATIME}, true
	case "strictatime":
		return word{flag: unix.MS_STRICTATIME}, true
	case "nostrictatime":
		return word{clear: true, flag: unix.MS_STRICTATIME}, true
	case "bind":
		return word{flag: unix.MS_BIND}, true
	case "rbind":
		return word{flag: unix.MS_BIND | unix.MS_REC}, true
	case "remount":
		return word{flag: unix.MS_REMOUNT}, true

	case "private":
		return word{kind: propagation, flag: unix.MS_PRIVATE}, true
	case "rprivate":
		return word{kind: propagation, flag: unix.MS_PRIVATE | unix.MS_REC}, true
	case "shared":
		return word{kind: propagation, flag: unix.MS_SHARED}, true
	case "rshared":
		return word{kind: propagation, flag: unix.MS_SHARED | unix.MS_REC}, true
	case "slave":
		return word{kind: propagation, flag: unix.MS_SLAVE}, true
	case "rslave":
		return word{kind: propagation, flag: unix.MS_SLAVE | unix.MS_REC}, true
	case "unbindable":
		return word{kind: propagation, flag: unix.MS_UNBINDABLE}, true
	case "runbindable":
		return word{kind: propagation, flag: unix.MS_UNBINDABLE | unix.MS_REC}, true

	case "rro":
		return word{kind: recursive, rec: unix.MOUNT_ATTR_RDONLY}, true
	case "rrw":
		return word{kind: recursive, clear: true, rec: unix.MOUNT_ATTR_RDONLY}, true
	case "rnosuid":
		return word{kind: recursive, rec: unix.MOUNT_ATTR_NOSUID}, true
	case "rsuid":
		return word{kind: recursive, clear: true, rec: unix.MOUNT_ATTR_NOSUID}, true
	case "rnodev":
		return word{kind: recursive, rec: unix.MOUNT_ATTR_NODEV}, true
	case "rdev":
		return word{kind: recursive, clear: true, rec: unix.MOUNT_ATTR_NODEV}, true
	case "rnoexec":
		return word{kind: recursive, rec: unix.MOUNT_ATTR_NOEXEC}, true
	case "rexec":
		return word{kind: recursive, clear: true, rec: unix.MOUNT_ATTR_NOEXEC}, true
	case "rnodiratime":
		return word{kind: recursive, rec: unix.MOUNT_ATTR_NODIRATIME}, true
	case "rdiratime":
		return word{kind: recursive, clear: true, rec: unix.MOUNT_ATTR_NODIRATIME}, true
	case "rnosymfollow":
		return word{kind: recursive, rec: unix.MOUNT_ATTR_NOSYMFOLLOW}, true
	case "rsymfollow":
		return word{kind: recursive, clear: true, rec: unix.MOUNT_ATTR_NOSYMFOLLOW}, true
	case "rrelatime", "ratime":
		return word{kind: recursiveTime, rec: unix.MOUNT_ATTR_RELATIME}, true
	case "rnorelatime", "rnostrictatime":
		return word{kind: recursiveTime, rec: unix.MOUNT_ATTR_RELATIME}, true
	case "rnoatime":
		return word{kind: recursiveTime, rec: unix.MOUNT_ATTR_NOATIME}, true
	case "rstrictatime":
		return word{kind: recursiveTime, rec: unix.MOUNT_ATTR_STRICTATIME}, true

	case "tmpcopyup", "idmap", "ridmap":
		return word{kind: special}, true
	}
	return word{}, false
}

// ParseOptions reads option words in their order: a later word overrides an earlier one. A word that is
// not known here is the file system's own and goes to Data. Words that a mount can have only one of
// (access times) replace each other.
func ParseOptions(list []string) (Options, error) {
	var o Options
	var data []string
	for _, name := range list {
		w, ok := lookup(name)
		if !ok {
			if strings.IndexByte(name, 0) >= 0 {
				return o, fault.New(fault.Invalid, "mount option %q has a zero byte", name)
			}
			if name != "" {
				data = append(data, name)
			}
			continue
		}
		switch w.kind {
		case plain:
			o.plain(w)
		case propagation:
			o.Propagation = append(o.Propagation, w.flag)
		case recursive:
			if w.clear {
				o.RecSet &^= w.rec
				o.RecClear |= w.rec
			} else {
				o.RecSet |= w.rec
				o.RecClear &^= w.rec
			}
		case recursiveTime:
			// The access times are a field of the attributes, which must be cleared to be set.
			o.RecSet = o.RecSet&^unix.MOUNT_ATTR__ATIME | w.rec
			o.RecClear |= unix.MOUNT_ATTR__ATIME
		case special:
			switch name {
			case "tmpcopyup":
				o.TmpCopyUp = true
			case "idmap":
				o.IDMap = true
			case "ridmap":
				o.IDMapRec = true
			}
		}
	}
	o.Data = strings.Join(data, ",")
	return o, nil
}

const accessTimes = unix.MS_NOATIME | unix.MS_RELATIME | unix.MS_STRICTATIME

func (o *Options) plain(w word) {
	if w.clear {
		o.Flags &^= w.flag
		o.Cleared |= w.flag
		return
	}
	if w.flag&accessTimes != 0 {
		o.Flags &^= accessTimes
	}
	o.Flags |= w.flag
	o.Cleared &^= w.flag
}

// Attributes turns MS_* flags into MOUNT_ATTR_* for fsmount and mount_setattr. Flags that belong to the
// file system and not to the mount (MS_SYNCHRONOUS, MS_MANDLOCK …) have no attribute: see Super.
func Attributes(flags uintptr) uint64 {
	var a uint64
	for _, f := range [...]struct {
		ms   uintptr
		attr uint64
	}{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY},
		{unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
		{unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
		{unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
		{unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME},
		{unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW},
	} {
		if flags&f.ms != 0 {
			a |= f.attr
		}
	}
	switch {
	case flags&unix.MS_STRICTATIME != 0:
		a |= unix.MOUNT_ATTR_STRICTATIME
	case flags&unix.MS_NOATIME != 0:
		a |= unix.MOUNT_ATTR_NOATIME
	}
	return a
}

// Super lists the flag words that fsconfig(FSCONFIG_SET_FLAG) wants on the file system itself.
func Super(flags uintptr) []string {
	var words []string
	for _, f := range [...]struct {
		ms   uintptr
		name string
	}{
		{unix.MS_RDONLY, "ro"},
		{unix.MS_SYNCHRONOUS, "sync"},
		{unix.MS_DIRSYNC, "dirsync"},
		{unix.MS_MANDLOCK, "mand"},
		{unix.MS_LAZYTIME, "lazytime"},
		{unix.MS_I_VERSION, "iversion"},
	} {
		if flags&f.ms != 0 {
			words = append(words, f.name)
		}
	}
	return words
}

// Words lists the option words that are known here, for `features` and for completion; the file systems'
// own words are not among them.
func Words() []string { return append([]string(nil), knownWords[:]...) }

var knownWords = [...]string{"acl", "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "idmap",
	"iversion", "lazytime", "loud", "mand", "noacl", "noatime", "nodev", "nodiratime", "noexec", "noiversion",
	"nolazytime", "nomand", "norelatime", "nostrictatime", "nosuid", "nosymfollow", "private", "ratime", "rbind", "rdev",
	"rdiratime", "relatime", "remount", "rexec", "ridmap", "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnorelatime",
	"rnostrictatime", "rnosuid", "rnosymfollow", "ro", "rprivate", "rrelatime", "rro", "rrw", "rshared", "rslave",
	"rstrictatime", "rsuid", "rsymfollow", "runbindable", "rw", "shared", "silent", "slave", "strictatime", "suid",
	"symfollow", "sync", "tmpcopyup", "unbindable"}
