package attest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"

	"berth/base/fault"
)

// Bounds of one file that is read in pieces.
const (
	piecesMax  = 64 << 20 // bytes read of it
	archiveMax = 16 << 20 // bytes read of a Java archive: its directory, an entry of which takes several times its size in memory
	namesMax   = 16 << 20 // bytes that the names of a program's sections may come to
)

// pieces is a file of which only so much can be read. Files may have holes of any size, and tables that say they are as large.
type pieces struct {
	f    io.ReaderAt
	left int64
}

var errPieces = fault.New(fault.Invalid, "too much of the file would have to be read")

// ReadAt reads, until too much was.
func (p *pieces) ReadAt(b []byte, off int64) (int, error) {
	if p.left -= int64(len(b)); p.left < 0 {
		return 0, errPieces
	}
	return p.f.ReadAt(b, off)
}

// program gives what may be read of an ELF file by debug/elf, which reads the names of sections at once, decompressing them if the file says so, and makes
// as many texts of them as there are sections; ok is false for everything else, and for what would take more memory than any linker's work.
func program(f io.ReaderAt) (r io.ReaderAt, ok bool) {
	r = &pieces{f, piecesMax}
	head := make([]byte, 64) // of 64 bits; one of 32 is shorter, elf(5)
	n, _ := r.ReadAt(head, 0)
	if n < 52 || !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return nil, false
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	wide := elf.Class(head[elf.EI_CLASS]) == elf.ELFCLASS64
	number := func(b []byte, at32, at64 int) uint64 { // an address, offset or size
		if wide {
			return order.Uint64(b[at64:])
		}
		return uint64(order.Uint32(b[at32:]))
	}
	at, counts := number(head, 32, 40), head[46:]
	if wide {
		counts = head[58:]
	}
	size, count, names := order.Uint16(counts), order.Uint16(counts[2:]), order.Uint16(counts[4:])
	if at == 0 && count == 0 {
		return r, true
	}
	if count == 0 || names >= count { // more sections than that field can say: no program has
		return nil, false
	}
	section := make([]byte, 64)
	if n, _ := r.ReadAt(section, int64(at)+int64(size)*int64(names)); n < 40 {
		return nil, false
	}
	if elf.SectionFlag(number(section, 8, 8))&elf.SHF_COMPRESSED != 0 || number(section, 20, 32) > namesMax/uint64(count) {
		return nil, false
	}
	return r, true
}
