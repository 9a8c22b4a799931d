package fuse

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// The wire format is struct fuse_* of <linux/fuse.h>, protocol 7.x, in the machine's byte order; all structures are
// padded to 8 bytes.
//
//	request  = in_header (40) body    len u32, opcode u32, unique u64, nodeid u64, uid u32, gid u32, pid u32,
//	                                  total_extlen u16 (in 8 bytes), padding u16
//	answer   = out_header (16) body   len u32, error i32 (0 or -errno), unique u64
//	notice   = out_header (16)        len u32, code i32, unique 0

const (
	protocolMajor = 7
	protocolMinor = 41 // of Linux 6.11; the kernel takes the lower one of both

	inHeaderSize  = 40
	outHeaderSize = 16
	attrSize      = 88
	entrySize     = 40 + attrSize
	direntSize    = 24

	// requestMax is the largest request that a read-only file system gets: batches of forgotten nodes fill what is there.
	// The kernel refuses a buffer smaller than 8 KiB or than max_write.
	requestMax = 16 << 10
	maxWrite   = 4096
	maxPages   = 256 // of one read: 1 MiB
	nameMax    = 255
	pathMax    = 4096
)

// Operations.
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opReadlink    = 5
	opOpen        = 14
	opRead        = 15
	opStatfs      = 17
	opRelease     = 18
	opGetxattr    = 22
	opListxattr   = 23
	opFlush       = 25
	opInit        = 26
	opOpendir     = 27
	opReaddir     = 28
	opReleasedir  = 29
	opAccess      = 34
	opInterrupt   = 36
	opDestroy     = 38
	opPoll        = 40
	opBatchForget = 42
	opReaddirplus = 44
	opLseek       = 46
)

// Flags of INIT.
const (
	initAsyncRead     = 1 << 0
	initDoReaddirplus = 1 << 13
	initReaddirAuto   = 1 << 14
	initParallelDir   = 1 << 18
	initPosixACL      = 1 << 20
	initAbortError    = 1 << 21
	initMaxPages      = 1 << 22
	initCacheSymlinks = 1 << 23
	initExplicitInval = 1 << 25
	initExt           = 1 << 30 // there is a second word of flags
	initHasResend     = 1 << 39 // Linux 6.9
	initAllowIDMap    = 1 << 40 // Linux 6.12
)

const notifyResend = 7

// request is one request, read from the kernel.
type request struct {
	op     uint32
	unique uint64
	node   Node
	pid    int32
	body   []byte
}

var order = binary.NativeEndian

// parse reads a request. What the kernel sends is well-formed; a buffer that is not is EINVAL, so that a defect shows as an
// error and not as a panic.
func parse(b []byte) (request, error) {
	if len(b) < inHeaderSize || uint64(order.Uint32(b)) != uint64(len(b)) {
		return request{}, unix.EINVAL
	}
	r := request{op: order.Uint32(b[4:]), unique: order.Uint64(b[8:]), node: Node(order.Uint64(b[16:])), pid: int32(order.Uint32(b[32:]))}
	ext := 8 * int(order.Uint16(b[36:]))
	if ext > len(b)-inHeaderSize {
		return request{}, unix.EINVAL
	}
	r.body = b[inHeaderSize : len(b)-ext]
	return r, nil
}

// text takes a string with its final zero off the front of b.
func text(b []byte) (string, bool) {
	s, _, ok := strings.Cut(string(b), "\x00")
	return s, ok
}

// span is what READ, READDIR and READDIRPLUS ask for.
type span struct {
	offset uint64
	size   uint32
}

func parseSpan(b []byte) (span, error) {
	if len(b) < 40 {
		return span{}, unix.EINVAL
	}
	s := span{offset: order.Uint64(b[8:]), size: order.Uint32(b[16:])}
	if s.size > maxPages*4096*16 || s.offset > 1<<63-1 { // pages of up to 64 KiB
		return span{}, unix.EINVAL
	}
	return s, nil
}

// parseXattr reads GETXATTR and LISTXATTR; name is "" for the latter.
func parseXattr(b []byte, named bool) (size uint32, name string, err error) {
	if len(b) < 8 {
		return 0, "", unix.EINVAL
	}
	size = order.Uint32(b)
	if named {
		var ok bool
		if name, ok = text(b[8:]); !ok {
			return 0, "", unix.EINVAL
		}
	}
	return size, name, nil
}

// initIn is the kernel's side of INIT.
type initIn struct {
	major, minor, readahead uint32
	flags                   uint64
}

func parseInit(b []byte) (initIn, error) {
	if len(b) < 8 {
		return initIn{}, unix.EINVAL
	}
	in := initIn{major: order.Uint32(b), minor: order.Uint32(b[4:])}
	if len(b) >= 16 {
		in.readahead, in.flags = order.Uint32(b[8:]), uint64(order.Uint32(b[12:]))
	}
	if len(b) >= 20 && in.flags&initExt != 0 {
		in.flags |= uint64(order.Uint32(b[16:])) << 32
	}
	return in, nil
}

func appendInit(b []byte, in initIn, flags uint64) []byte {
	b = order.AppendUint32(b, protocolMajor)
	b = order.AppendUint32(b, min(in.minor, protocolMinor))
	b = order.AppendUint32(b, in.readahead)
	b = order.AppendUint32(b, uint32(flags))
	b = order.AppendUint16(b, 64) // max_background: reads ahead that may be under way
	b = order.AppendUint16(b, 48) // congestion_threshold
	b = order.AppendUint32(b, maxWrite)
	b = order.AppendUint32(b, 1) // time_gran: nanoseconds
	b = order.AppendUint16(b, maxPages)
	b = order.AppendUint16(b, 0)
	b = order.AppendUint32(b, uint32(flags>>32))
	return append(b, make([]byte, 28)...)
}

// forever is how long the kernel may believe what it was told: ten years, in seconds.
const forever = 10 * 365 * 24 * 3600

func appendAttr(b []byte, n Node, a *Attr) []byte {
	b = order.AppendUint64(b, uint64(n))
	b = order.AppendUint64(b, uint64(a.Size))
	b = order.AppendUint64(b, (uint64(a.Size)+511)/512)
	b = order.AppendUint64(b, uint64(a.Mtime.Sec)) // no file here was ever read, as far as its atime knows
	b = order.AppendUint64(b, uint64(a.Mtime.Sec))
	b = order.AppendUint64(b, uint64(a.Mtime.Sec))
	b = order.AppendUint32(b, uint32(a.Mtime.Nsec))
	b = order.AppendUint32(b, uint32(a.Mtime.Nsec))
	b = order.AppendUint32(b, uint32(a.Mtime.Nsec))
	b = order.AppendUint32(b, a.Mode)
	b = order.AppendUint32(b, a.Nlink)
	b = order.AppendUint32(b, a.UID)
	b = order.AppendUint32(b, a.GID)
	b = order.AppendUint32(b, deviceNumber(a.Major, a.Minor))
	b = order.AppendUint32(b, 4096) // blksize
	return order.AppendUint32(b, 0)
}

// deviceNumber is the kernel's new_encode_dev: 12 bits of major, 20 of minor.
func deviceNumber(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | minor&^0xff<<12
}

func appendAttrOut(b []byte, n Node, a *Attr) []byte {
	b = order.AppendUint64(b, forever)
	b = order.AppendUint64(b, 0)
	return appendAttr(b, n, a)
}

// appendEntry writes what a name leads to. Node 0 is "nothing", to be remembered as well.
func appendEntry(b []byte, n Node, a *Attr) []byte {
	return appendEntryFor(b, n, a, forever)
}

func appendEntryFor(b []byte, n Node, a *Attr, seconds uint64) []byte {
	b = order.AppendUint64(b, uint64(n))
	b = order.AppendUint64(b, 0) // generation: a number never means another file
	b = order.AppendUint64(b, seconds)
	b = order.AppendUint64(b, seconds)
	b = order.AppendUint64(b, 0)
	return appendAttr(b, n, a)
}

// appendDirent writes one name of a directory. next is the position after it.
func appendDirent(b []byte, n Node, next uint64, mode uint32, name string) []byte {
	b = order.AppendUint64(b, uint64(n))
	b = order.AppendUint64(b, next)
	b = order.AppendUint32(b, uint32(len(name)))
	b = order.AppendUint32(b, mode&unix.S_IFMT>>12)
	b = append(b, name...)
	return append(b, make([]byte, pad(len(name)))...)
}

// pad is how many bytes bring n to a multiple of 8.
func pad(n int) int { return -n & 7 }

func appendStatfs(b []byte, s *Statfs) []byte {
	b = order.AppendUint64(b, (s.Bytes+4095)/4096)
	b = order.AppendUint64(b, 0)
	b = order.AppendUint64(b, 0)
	b = order.AppendUint64(b, s.Files)
	b = order.AppendUint64(b, 0)
	b = order.AppendUint32(b, 4096)
	b = order.AppendUint32(b, nameMax)
	b = order.AppendUint32(b, 4096)
	return append(b, make([]byte, 28)...)
}
