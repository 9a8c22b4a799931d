package launch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A container's first program is not ours to be found in: while a process of the container still has
// our executable as its own, /proc/PID/exe leads to it, and a container that is told to execute
// /proc/self/exe can overwrite it (CVE-2019-5736). So the child's first act is to execute a program
// written for it alone, into memory: the loop in clone_*.s as its text and the launch table as its data.
// The rest of the launch happens in there. It also means that a child which waits is two dozen pages
// and no copy of the launcher, and that a memory limit it is born into can hit only itself.
//
//	file offset   address     content
//	0x0           0x200000    ELF header, program headers, walk
//	0x10000       0x400000    the table (table.go)
//
// 64 KiB lie between, the largest page size of the supported machines.
const (
	textAddr    = 0x200000
	tableAddr   = 0x400000
	tableOffset = 0x10000
	textOffset  = 256 // of walk, behind the headers
)

// walkAddress is where walk's machine code begins.
func walkAddress() uintptr

// walkEnd follows walk's last instruction.
var walkEnd = []byte("BERTHEND")

var walkText = sync.OnceValue(func() []byte {
	const enough = 4096
	p := walkAddress()
	text := unsafe.Slice(*(**byte)(unsafe.Pointer(&p)), enough)
	n := bytes.Index(text, walkEnd)
	if n < 0 {
		panic("launch: the end of walk is not where it should be")
	}
	return text[:n]
})

// elfHead is everything in front of the table, for a table of size bytes.
func elfHead(size int) []byte {
	text := walkText()
	b := make([]byte, textOffset+len(text))
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01") // 64 bit, little endian, version 1
	le.PutUint16(b[16:], 2)        // ET_EXEC
	machine := uint16(62)          // EM_X86_64
	if runtime.GOARCH == "arm64" {
		machine = 183 // EM_AARCH64
	}
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], textAddr+textOffset) // entry
	le.PutUint64(b[32:], 64)                  // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 3)
	const exec, write, read = 1, 2, 4
	segment := func(i int, kind, flags uint32, off, addr, size uint64) {
		p := b[64+56*i:]
		le.PutUint32(p, kind)
		le.PutUint32(p[4:], flags)
		le.PutUint64(p[8:], off)
		le.PutUint64(p[16:], addr)
		le.PutUint64(p[24:], addr)
		le.PutUint64(p[32:], size)
		le.PutUint64(p[40:], size)
		le.PutUint64(p[48:], tableOffset)
	}
	const load, stack = 1, 0x6474e551
	segment(0, load, read|exec, 0, textAddr, uint64(len(b)))
	segment(1, load, read|write, tableOffset, tableAddr, uint64(size))
	segment(2, stack, read|write, 0, 0, 0)
	copy(b[textOffset:], text)
	return b
}

// program writes the child's program into memory and gives its descriptor.
func program(table []byte) (int, error) {
	fd, err := unix.MemfdCreate("berth-start", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL { // MFD_EXEC came with Linux 6.3, and was the only kind before
		fd, err = unix.MemfdCreate("berth-start", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1, fmt.Errorf("make memory for the container's first program: %w (is vm.memfd_noexec 2?)", err)
	}
	_, err = unix.Pwrite(fd, elfHead(len(table)), 0)
	if err == nil {
		_, err = unix.Pwrite(fd, table, tableOffset)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("write the container's first program: %w", err)
	}
	return fd, nil
}
