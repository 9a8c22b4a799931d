package content

import (
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"

	"berth/base/tarstream"
)

const blockSize = 512

// tarWriter writes PAX archives. Go's archive/tar writes no sparse files.
type tarWriter struct {
	w   io.Writer
	pad int64 // after the payload being written
}

// The comments of archives of ours.
const (
	commentStart  = "berth-volume 1"
	commentXattrs = "berth-xattrs "
)

// records are those of an extended header, in order.
type records struct{ b strings.Builder }

// add writes "LENGTH KEY=VALUE\n", where LENGTH counts itself.
func (r *records) add(key, value string) {
	rest := len(" =\n") + len(key) + len(value)
	n := rest + len(strconv.Itoa(rest))
	if len(strconv.Itoa(n)) != len(strconv.Itoa(rest)) {
		n = rest + len(strconv.Itoa(n))
	}
	fmt.Fprintf(&r.b, "%d %s=%s\n", n, key, value)
}

// entry writes the header of an entry; its payload, of stored bytes, follows with Write. What does not fit into the old fields
// goes into an extended header: times always do.
func (t *tarWriter) entry(h *tarstream.Header, attrs []attribute) error {
	var r records
	name := h.Name
	stored := h.Size
	var sparseMap []byte
	if h.Type != tarstream.Regular {
		stored = 0
	}
	if h.IsSparse {
		sparseMap, stored = sparse(h)
		r.add("GNU.sparse.major", "1")
		r.add("GNU.sparse.minor", "0")
		r.add("GNU.sparse.name", h.Name)
		r.add("GNU.sparse.realsize", strconv.FormatInt(h.Size, 10))
		dir, base := split(h.Name)
		name = join(join(dir, "GNUSparseFile.0"), base)
	}
	if len(name) > 100 || !ascii(name) {
		r.add("path", name)
	}
	if len(h.Linkname) > 100 || !ascii(h.Linkname) {
		r.add("linkpath", h.Linkname)
	}
	for _, n := range [...]struct {
		key   string
		value int64
		top   int64
	}{{"uid", h.UID, 1<<21 - 1}, {"gid", h.GID, 1<<21 - 1}, {"size", stored, 1<<33 - 1}} {
		if n.value > n.top {
			r.add(n.key, strconv.FormatInt(n.value, 10))
		}
	}
	r.add("mtime", paxTime(h.ModTime))
	if h.Access != (tarstream.Time{}) {
		r.add("atime", paxTime(h.Access))
	}
	var odd []string
	for _, a := range attrs {
		if len(a.value) == 0 || strings.Contains(a.name, "=") {
			odd = append(odd, hex.EncodeToString([]byte(a.name))+":"+hex.EncodeToString(a.value))
			continue
		}
		r.add("SCHILY.xattr."+a.name, string(a.value))
	}
	if odd != nil {
		r.add("comment", commentXattrs+strings.Join(odd, ","))
	}
	if err := t.extended('x', r.b.String()); err != nil {
		return err
	}
	if err := t.block(name, h, stored); err != nil {
		return err
	}
	t.pad = -stored & (blockSize - 1)
	if sparseMap != nil {
		_, err := t.w.Write(sparseMap)
		return err
	}
	return nil
}

// Write writes payload.
func (t *tarWriter) Write(b []byte) (int, error) { return t.w.Write(b) }

// done ends an entry's payload.
func (t *tarWriter) done() error {
	_, err := t.w.Write(zeros[:t.pad])
	t.pad = 0
	return err
}

// comment writes a global header that says something to us and nothing to others.
func (t *tarWriter) comment(text string) error {
	var r records
	r.add("comment", text)
	return t.extended('g', r.b.String())
}

// end writes the archive's end.
func (t *tarWriter) end() error {
	_, err := t.w.Write(zeros[:2*blockSize])
	return err
}

// extended writes a header about the next entry ('x') or about all that follow ('g').
func (t *tarWriter) extended(kind byte, body string) error {
	h := &tarstream.Header{Type: kind, Mode: 0o644}
	if err := t.block("./PaxHeaders/berth", h, int64(len(body))); err != nil {
		return err
	}
	_, err := io.WriteString(t.w, body+string(zeros[:-len(body)&(blockSize-1)]))
	return err
}

// block writes one ustar header block; numbers that do not fit are zero and stand in the extended header.
func (t *tarWriter) block(name string, h *tarstream.Header, size int64) error {
	var b [blockSize]byte
	octal := func(at, n int, v int64) {
		text := strconv.FormatInt(v, 8)
		if v < 0 || len(text) > n-1 {
			text = "0"
		}
		copy(b[at:], strings.Repeat("0", n-1-len(text))+text)
	}
	copy(b[0:100], plain(name))
	octal(100, 8, h.Mode)
	octal(108, 8, h.UID)
	octal(116, 8, h.GID)
	octal(124, 12, size)
	octal(136, 12, h.ModTime.Sec)
	b[156] = h.Type
	copy(b[157:257], plain(h.Linkname))
	copy(b[257:265], "ustar\x0000")
	octal(329, 8, h.Major)
	octal(337, 8, h.Minor)
	sum := int64(8 * ' ')
	for i, c := range b {
		if i < 148 || i >= 156 {
			sum += int64(c)
		}
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	_, err := t.w.Write(b[:])
	return err
}

// plain makes a name fit for the old field, which readers that know PAX do not look at then.
func plain(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c >= 0x80 {
			b[i] = '_'
		}
	}
	if len(b) > 100 {
		b = b[:100]
	}
	return string(b)
}

// sparse writes the map of a sparse file, format 1.0: the number of stretches, then offset and length of each, a line
// each, filled up to a block. A file that ends in a hole has an empty stretch there, as GNU tar writes it.
func sparse(h *tarstream.Header) (text []byte, stored int64) {
	fragments := h.Sparse
	var total int64
	for _, f := range fragments {
		total += f.Length
	}
	text = fmt.Appendf(nil, "%d\n", len(fragments))
	for _, f := range fragments {
		text = fmt.Appendf(text, "%d\n%d\n", f.Offset, f.Length)
	}
	text = append(text, zeros[:-len(text)&(blockSize-1)]...)
	return text, int64(len(text)) + total
}

// paxTime writes seconds with their fraction. Before 1970 the fraction counts down, as the sign is of the whole number.
func paxTime(t tarstream.Time) string {
	sec, nsec, sign := t.Sec, t.Nsec, ""
	if sec < 0 {
		sign = "-"
		if nsec > 0 {
			sec, nsec = sec+1, 1_000_000_000-nsec
		}
		sec = -sec
	}
	if nsec == 0 {
		return sign + strconv.FormatInt(sec, 10)
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, sec, nsec), "0")
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

var zeros [4096]byte
