package tarstream

import (
	"bytes"
	"io"
	"math"
	"strings"

	"berth/base/fault"
)

// sparse finds out whether the entry is a sparse file, reads its map and checks it against the payload.
func (r *Reader) sparse(h *Header, pax map[string]string, f format) error {
	var fragments []Fragment
	var is bool
	var err error
	if h.Type == GNUSparse {
		is = true
		fragments, err = r.sparseGNU(h, f)
	} else {
		fragments, is, err = r.sparsePAX(h, pax)
	}
	if err != nil || !is {
		return err
	}
	if headerOnly(h.Type) || h.Size < 0 {
		return malformed("sparse map on a file without content")
	}
	var end, total int64
	for _, f := range fragments {
		if f.Offset < end || f.Length < 0 || f.Offset > math.MaxInt64-f.Length || f.Offset+f.Length > h.Size {
			return malformed("sparse map out of order or beyond the file's end")
		}
		end = f.Offset + f.Length
		total += f.Length
	}
	if total != r.left {
		return malformed("sparse map and payload differ in length")
	}
	h.Sparse, h.IsSparse = fragments, true
	return nil
}

// sparseGNU reads the map of an old GNU sparse file: four pairs in the header, 21 in each block that follows it.
func (r *Reader) sparseGNU(h *Header, f format) ([]Fragment, error) {
	if f != gnu {
		return nil, malformed("sparse file without GNU's magic") // star has the same type with another layout
	}
	size, ok := numeric(fGNURealSize.of(&r.blk))
	if !ok {
		return nil, malformed("sparse file's real size")
	}
	h.Size = size
	var fragments []Fragment
	table := fGNUSparse.of(&r.blk)
	for read := int64(len(table)); ; read += blockSize {
		if read >= r.limits.SpecialSize {
			return nil, r.sparseTooLong()
		}
		pairs := (len(table) - 1) / 24
		for i := range pairs {
			pair := table[i*24 : i*24+24]
			if pair[0] == 0 {
				break
			}
			at, ok1 := numeric(pair[:12])
			n, ok2 := numeric(pair[12:])
			if !ok1 || !ok2 {
				return nil, malformed("sparse map")
			}
			if fragments = append(fragments, Fragment{at, n}); len(fragments) > r.limits.Fragments {
				return nil, r.sparseTooLong()
			}
		}
		if table[pairs*24] == 0 {
			return fragments, nil
		}
		if _, err := r.readBlock(); err != nil {
			return nil, unexpected(err)
		}
		table = r.blk[:21*24+1]
	}
}

// sparsePAX reads the map of GNU's PAX formats: 0.0 and 0.1 in the records, 1.0 in front of the payload.
func (r *Reader) sparsePAX(h *Header, pax map[string]string) (fragments []Fragment, is bool, err error) {
	version1 := false
	major, minor := pax["GNU.sparse.major"], pax["GNU.sparse.minor"]
	switch {
	case major == "0" && (minor == "0" || minor == "1"):
	case major == "1" && minor == "0":
		version1 = true
	case major != "" || minor != "":
		return nil, false, nil
	case pax["GNU.sparse.map"] != "":
	default:
		return nil, false, nil
	}
	if name := pax["GNU.sparse.name"]; name != "" {
		h.Name = name
	}
	size := pax["GNU.sparse.size"]
	if size == "" {
		size = pax["GNU.sparse.realsize"]
	}
	if size != "" {
		n, ok := decimal(size)
		if !ok {
			return nil, false, malformed("sparse file's real size")
		}
		h.Size = n
	}
	if version1 {
		fragments, err = r.sparseMap1()
	} else {
		fragments, err = r.sparseMap0(pax)
	}
	return fragments, true, err
}

func (r *Reader) sparseMap0(pax map[string]string) ([]Fragment, error) {
	count, ok := decimal(pax["GNU.sparse.numblocks"])
	var words []string
	if m := pax["GNU.sparse.map"]; m != "" {
		words = strings.Split(m, ",")
	}
	if !ok || count < 0 || count > int64(r.limits.Fragments) || int64(len(words)) != 2*count {
		return nil, malformed("sparse map")
	}
	return fragmentsOf(words)
}

// sparseMap1 reads lines of decimal numbers (a count, then offset and length in turn) in whole blocks.
func (r *Reader) sparseMap1() ([]Fragment, error) {
	var text []byte
	lines := 0
	read := func(want int) error {
		for lines < want {
			if int64(len(text))+blockSize > r.limits.SpecialSize {
				return r.sparseTooLong()
			}
			if r.left < blockSize {
				return io.ErrUnexpectedEOF
			}
			if _, err := r.readBlock(); err != nil {
				return unexpected(err)
			}
			r.left -= blockSize
			text = append(text, r.blk[:]...)
			lines += bytes.Count(r.blk[:], []byte{'\n'})
		}
		return nil
	}
	if err := read(1); err != nil {
		return nil, err
	}
	first, _, _ := bytes.Cut(text, []byte{'\n'})
	count, ok := decimal(string(first))
	if !ok || count < 0 || count > int64(r.limits.Fragments) {
		return nil, malformed("sparse map")
	}
	if err := read(1 + 2*int(count)); err != nil {
		return nil, err
	}
	words := strings.SplitN(string(text), "\n", 2+2*int(count))
	return fragmentsOf(words[1 : 1+2*count])
}

func fragmentsOf(words []string) ([]Fragment, error) {
	fragments := make([]Fragment, 0, len(words)/2)
	for i := 0; i < len(words); i += 2 {
		at, ok1 := decimal(words[i])
		n, ok2 := decimal(words[i+1])
		if !ok1 || !ok2 {
			return nil, malformed("sparse map")
		}
		fragments = append(fragments, Fragment{at, n})
	}
	return fragments, nil
}

func (r *Reader) sparseTooLong() error {
	return fault.New(fault.Invalid, "tar at byte %d: sparse map longer than the limit", r.in.pos)
}
