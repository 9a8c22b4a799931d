package tarstream

import (
	"bytes"
	"strconv"
)

// format is the dialect of one header block.
type format uint8

const (
	unknown format = iota
	v7
	ustar // and PAX
	star
	gnu
)

// field is a place in a header block: offset and length.
type field struct{ at, n int }

// A header block. All dialects share the first rows:
//
//	  0 name 100 | 100 mode 8 | 108 uid 8 | 116 gid 8 | 124 size 12 | 136 mtime 12 | 148 checksum 8 | 156 type 1 | 157 linkname 100
//	257 magic 6 | 263 version 2 | 265 uname 32 | 297 gname 32 | 329 devmajor 8 | 337 devminor 8
//	ustar: 345 prefix 155
//	star:  345 prefix 131 | 476 atime 12 | 488 ctime 12 | 508 "tar\0"
//	gnu:   345 atime 12 | 357 ctime 12 | 386 4 × (offset 12, length 12), 482 more follow | 483 real size 12
var (
	fName     = field{0, 100}
	fMode     = field{100, 8}
	fUID      = field{108, 8}
	fGID      = field{116, 8}
	fSize     = field{124, 12}
	fMtime    = field{136, 12}
	fChecksum = field{148, 8}
	fLinkname = field{157, 100}
	fUname    = field{265, 32}
	fGname    = field{297, 32}
	fMajor    = field{329, 8}
	fMinor    = field{337, 8}
	fPrefix   = field{345, 155}

	fStarPrefix = field{345, 131}
	fStarAtime  = field{476, 12}
	fStarCtime  = field{488, 12}

	fGNUAtime    = field{345, 12}
	fGNUCtime    = field{357, 12}
	fGNUSparse   = field{386, 4*24 + 1}
	fGNURealSize = field{483, 12}
)

const typeAt = 156

func (f field) of(b *[blockSize]byte) []byte { return b[f.at : f.at+f.n] }

func (f field) text(b *[blockSize]byte) string { return cString(f.of(b)) }

// detect verifies the checksum and tells the dialect; unknown for a block that is no header.
func detect(b *[blockSize]byte) format {
	want, ok := octal(fChecksum.of(b))
	if !ok {
		return unknown
	}
	// The sum is over unsigned bytes; Sun's tar took signed ones.
	var unsigned, signed int64
	for i, c := range b {
		if i >= fChecksum.at && i < fChecksum.at+fChecksum.n {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	if want != unsigned && want != signed {
		return unknown
	}
	switch {
	case string(b[257:263]) == "ustar\x00" && string(b[508:512]) == "tar\x00":
		return star
	case string(b[257:263]) == "ustar\x00":
		return ustar
	case string(b[257:265]) == "ustar  \x00":
		return gnu
	}
	return v7
}

// IsHeader reports whether b starts with a tar header block with a right checksum, or with the zero block that an empty
// archive starts with.
func IsHeader(b []byte) bool {
	if len(b) < blockSize {
		return false
	}
	blk := (*[blockSize]byte)(b[:blockSize])
	return *blk == [blockSize]byte{} || detect(blk) != unknown
}

// parseBlock fills h from one header block.
func parseBlock(b *[blockSize]byte, f format, h *Header) error {
	bad := false
	num := func(f field) int64 {
		n, ok := numeric(f.of(b))
		bad = bad || !ok
		return n
	}
	h.Type = b[typeAt]
	h.Name = fName.text(b)
	h.Linkname = fLinkname.text(b)
	h.Size = num(fSize)
	h.Mode = num(fMode)
	h.UID = num(fUID)
	h.GID = num(fGID)
	h.ModTime = Time{Sec: num(fMtime)}
	if f > v7 {
		h.Uname = fUname.text(b)
		h.Gname = fGname.text(b)
		h.Major = num(fMajor)
		h.Minor = num(fMinor)
		prefix := ""
		switch f {
		case ustar:
			prefix = fPrefix.text(b)
		case star:
			prefix = fStarPrefix.text(b)
			h.Access = Time{Sec: num(fStarAtime)}
			num(fStarCtime)
		case gnu:
			prefix = gnuTimes(b, h)
		}
		if prefix != "" {
			h.Name = prefix + "/" + h.Name
		}
	}
	if bad {
		return malformed("a number is none")
	}
	return nil
}

// gnuTimes reads the times of a GNU header. Go before 1.8 wrote a ustar prefix in their place under GNU's magic:
// what does not parse as times and is ASCII is such a prefix.
func gnuTimes(b *[blockSize]byte, h *Header) (prefix string) {
	ok := true
	get := func(f field) int64 {
		raw := f.of(b)
		if raw[0] == 0 {
			return 0
		}
		n, good := numeric(raw)
		ok = ok && good
		return n
	}
	h.Access = Time{Sec: get(fGNUAtime)}
	get(fGNUCtime)
	if ok {
		return ""
	}
	h.Access = Time{}
	s := fPrefix.text(b)
	for i := range len(s) {
		if s[i] >= 0x80 {
			return ""
		}
	}
	return s
}

// numeric reads a number: octal text, or base 256 when the first bit is set (two's complement, the sign in the
// second bit).
func numeric(b []byte) (int64, bool) {
	if len(b) == 0 || b[0]&0x80 == 0 {
		return octal(b)
	}
	var invert byte
	if b[0]&0x40 != 0 {
		invert = 0xff
	}
	var x uint64
	for i, c := range b {
		c ^= invert
		if i == 0 {
			c &= 0x7f
		}
		if x>>56 != 0 {
			return 0, false
		}
		x = x<<8 | uint64(c)
	}
	if x>>63 != 0 {
		return 0, false
	}
	if invert != 0 {
		return ^int64(x), true
	}
	return int64(x), true
}

// octal reads a number between spaces and NULs; nothing is 0.
func octal(b []byte) (int64, bool) {
	b = bytes.Trim(b, " \x00")
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	if len(b) == 0 {
		return 0, true
	}
	var x uint64
	for _, c := range b {
		if c < '0' || c > '7' || x>>61 != 0 {
			return 0, false
		}
		x = x<<3 | uint64(c-'0')
	}
	return int64(x), true
}

// decimal reads a number as PAX writes it.
func decimal(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
