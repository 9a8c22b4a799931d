package mergedroot

import (
	"bytes"
	"encoding/binary"
	"path"
	"strings"
)

// headSize is how much of a program is looked at for its loader.
const headSize = 64 << 10

// LookPath finds a program in the view as execvp(3) would, or "".
func LookPath(r *Root, name, searchPath string) string {
	if strings.Contains(name, "/") {
		if _, err := r.Stat(name); err != nil {
			return ""
		}
		return name
	}
	for _, dir := range strings.Split(searchPath, ":") {
		p := path.Join("/", dir, name)
		if st, err := r.Stat(p); err == nil && st.Mode().IsRegular() {
			return p
		}
	}
	return ""
}

// Loader gives what the kernel runs to run the program: a script's interpreter or a dynamic program's loader. "" if it needs none, or
// cannot be read.
func Loader(r *Root, name string) string {
	b, err := r.ReadFile(name, headSize)
	if err != nil {
		return ""
	}
	if script, ok := bytes.CutPrefix(b, []byte("#!")); ok {
		line, _, _ := bytes.Cut(script, []byte{'\n'})
		if f := strings.Fields(string(line)); len(f) > 0 {
			return f[0]
		}
		return ""
	}
	return elfLoader(b)
}

// elfLoader reads PT_INTERP out of the head of an ELF file, see elf(5). debug/elf wants the whole file.
func elfLoader(b []byte) string {
	if len(b) < 64 || string(b[:4]) != "\x7fELF" {
		return ""
	}
	var order binary.ByteOrder = binary.LittleEndian
	if b[5] == 2 {
		order = binary.BigEndian
	}
	wide := b[4] == 2
	table, size, count := uint64(order.Uint32(b[28:])), int(order.Uint16(b[42:])), int(order.Uint16(b[44:]))
	if wide {
		table, size, count = order.Uint64(b[32:]), int(order.Uint16(b[54:])), int(order.Uint16(b[56:]))
	}
	for i := range count {
		at := table + uint64(i*size)
		if at > uint64(len(b)) || uint64(len(b))-at < 56 {
			return ""
		}
		h := b[at:]
		if order.Uint32(h) != ptInterp {
			continue
		}
		off, n := uint64(order.Uint32(h[4:])), uint64(order.Uint32(h[16:]))
		if wide {
			off, n = order.Uint64(h[8:]), order.Uint64(h[32:])
		}
		if off > uint64(len(b)) || n > uint64(len(b))-off {
			return ""
		}
		return string(bytes.TrimRight(b[off:off+n], "\x00"))
	}
	return ""
}

const ptInterp = 3
