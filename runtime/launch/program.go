package launch

import (
	"golang.org/x/sys/unix"
)

// Program is a compiled launch: everything that happens between "start" and the container's first
// instruction, as data.
type Program struct {
	// Prepare is run by the launcher, in order, before the clone.
	Prepare []Step
	// Child is run by the new process, in order; its last step never returns when all is well.
	Child []Step
	// Clone says how the child is made.
	Clone Clone
	// Slots names the result slots, for printing. Slot i of a step's argument is Slots[i].
	Slots []string
	// Listener is the slot of a seccomp listener in the child, or NoSlot.
	Listener Slot
	// Terminal says that Prepare makes a pty whose master ends in SlotConsole.
	Terminal bool
	// Args0 is what the user asked to run, for error messages.
	Args0 string
	// Owner is the uid that must own the standard streams, so that /dev/stdout can be reopened.
	Owner int
}

// Clone is how the child is made.
type Clone struct {
	Flags     uint64 // CLONE_NEW* and CLONE_INTO_CGROUP; how memory is shared is the launcher's matter
	Cgroup    Slot   // directory descriptor for CLONE_INTO_CGROUP
	Waits     bool   // the child stops on the way (gate, maps, hooks) for the launcher
	Maps      *Maps  // identity maps to write once the child exists
	Covered   bool   // clone from the launcher's empty mount namespace
	Views     bool   // clone from that of its mount namespaces which has nothing but proc and sysfs
	PidNS     Slot   // pid namespace to enter before the clone (children only), or NoSlot
	GateStops bool   // the gate is Process.Release, not a fifo
}

// Maps are the contents of /proc/PID/uid_map and friends (user_namespaces(7)).
type Maps struct {
	UID, GID      string
	DenySetgroups bool
}

// Slot is the index of a result that later steps use.
type Slot int16

// NoSlot means that a step's result is dropped.
const NoSlot Slot = -1

// Slots that Start fills before the first step.
const (
	SlotIn      Slot = iota // becomes descriptor 0
	SlotOut                 // becomes descriptor 1
	SlotErr                 // becomes descriptor 2
	SlotConsole             // the pty master, made by Prepare
	SlotSync                // the child's end of the socket to the launcher
	SlotOwnIn               // SlotIn when its owner should become the program's user, else -1
	SlotOwnOut
	SlotOwnErr
	SlotHighIn // SlotIn when it is above 2, else -1
	SlotHighOut
	SlotHighErr
	fixedSlots
)

var fixedNames = []string{"stdin", "stdout", "stderr", "console", "sync", "own-stdin", "own-stdout", "own-stderr", "high-stdin", "high-stdout", "high-stderr"}

// Step is one system call and what follows from its result.
type Step struct {
	Nr    int    // system call number of this architecture, or one of the Op numbers
	Args  [6]Arg // unused ones are zero
	Out   Slot   // where the result goes, or NoSlot
	OnOK  int    // how many of the next steps success skips
	OnErr []Rescue
	// Positive says that a result of 0 is a failure (end of file at a gate).
	Positive bool
	// What says in a person's words what the step is for; errors begin with it.
	What string
}

// Rescue says that an errno is expected here, and how many of the next steps it skips.
type Rescue struct {
	Errno unix.Errno
	Skip  int
}

// OpFail ends the child with the errno in its first argument: the last word of a search.
// OpUserns makes a user namespace with the maps in its arguments and stores its descriptor, OpCopyUp
// copies a directory of the root (first argument, path in the second) into a mount (third), OpOverlay
// mounts layers (first, topmost first) with upper and work directory, userxattr and label the way of old
// kernels, through the two maps of its last argument if it has one; OpCreateAs creates the file system that a
// descriptor (first argument) configures, as the file system user and group that follow. All in Prepare only.
const (
	OpFail     = -1
	OpUserns   = -2
	OpCopyUp   = -3
	OpOverlay  = -4
	OpCreateAs = -5
)

// maxRescues is how many expected errnos the child's table has room for.
const maxRescues = 3

// Arg is an argument: a number, a slot's content, or the address of data.
type Arg struct {
	Kind ArgKind
	N    uint64 // the number, or the slot
	D    *Data  // what is pointed to
}

// Data is what a pointer argument points to. Steps may share it.
type Data struct {
	Bytes []byte // strings end in NUL; never empty
	Ptrs  []Ptr  // pointers inside Bytes
	Fill  []Fill // contents of slots to copy into Bytes; in Child those that Prepare has filled

	index int // among the data of the layout or encoding that was made last
}

// ArgKind tells the three sorts of argument apart.
type ArgKind uint8

// The sorts of argument.
const (
	ArgInt ArgKind = iota
	ArgSlot
	ArgData
	ArgSlotAddress // where the slot's eight bytes are (Child only)
)

// Ptr says that the eight bytes at Off hold the address of To.
type Ptr struct {
	Off int
	To  []byte
}

// Fill says that the eight bytes at Off hold the slot's content.
type Fill struct {
	Off  int
	Slot Slot
}

// Int is a number as an argument.
func Int[T ~int | ~int32 | ~int64 | ~uint | ~uint32 | ~uint64 | ~uintptr](n T) Arg {
	return Arg{Kind: ArgInt, N: uint64(n)}
}

// Str is a path or other string as an argument.
func Str(s string) Arg { return Bytes(append([]byte(s), 0)) }

// Bytes is a structure as an argument. Empty data still has an address.
func Bytes(b []byte) Arg {
	if len(b) == 0 {
		b = []byte{0}
	}
	return Arg{Kind: ArgData, D: &Data{Bytes: b}}
}

// Of is a slot's content as an argument.
func Of(s Slot) Arg { return Arg{Kind: ArgSlot, N: uint64(s)} }

// atCwd is AT_FDCWD as an argument.
var atCwd = Arg{Kind: ArgInt, N: ^uint64(99)}

// vector is a NULL-terminated array of strings, as execve wants it.
func vector(ss []string) Arg {
	a := Bytes(make([]byte, 8*(len(ss)+1)))
	for i, s := range ss {
		a.D.Ptrs = append(a.D.Ptrs, Ptr{Off: 8 * i, To: append([]byte(s), 0)})
	}
	return a
}
