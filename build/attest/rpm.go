package attest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"io"
	"strconv"
)

// Where rpm keeps its database: in SQLite's format (Fedora since 33, RHEL since 9) or in one of its own (SUSE). The older ones of Berkeley DB
// are not read.
var (
	rpmDirs   = []string{"var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"}
	rpmSQLite = "rpmdb.sqlite"
	rpmNDB    = "Packages.db"
)

// rpm reads rpm's database.
func (s *scan) rpm() {
	for _, dir := range rpmDirs {
		name := dir + "/" + rpmSQLite
		s.openedDatabase(name, func(f io.ReaderAt, size int64) {
			_ = tableRows(f, size, "Packages", func(c []any) { // what came before the damage is told
				if len(c) == 2 {
					raw, _ := c[1].([]byte)
					s.add(parseRPM(raw, s.distro, "/"+name)...)
				}
			})
		})
		name2 := dir + "/" + rpmNDB
		s.openedDatabase(name2, func(f io.ReaderAt, size int64) {
			ndbBlobs(f, size, func(raw []byte) { s.add(parseRPM(raw, s.distro, "/"+name2)...) })
		})
	}
}

func (s *scan) openedDatabase(name string, use func(f io.ReaderAt, size int64)) {
	f, err := s.root.OpenFile(name)
	if err != nil {
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size <= 4*databaseMax {
		use(f, st.Size)
	}
}

// Tags of a package's header that are read here (rpmtag.h), and the types of their values.
const (
	tagName, tagVersion, tagRelease, tagEpoch, tagVendor, tagLicense, tagPackager, tagArch = 1000, 1001, 1002, 1003, 1011, 1014, 1015, 1022

	typeInt32, typeString, typeI18N = 4, 6, 9
)

// headerMax bounds the entries of a header.
const headerMax = 1 << 16

// parseRPM reads a package's header as the database has it: two counts, an index of (tag, type, offset, count), and the values, all numbers with
// the high byte first.
func parseRPM(raw []byte, d distro, found string) []Package {
	if len(raw) < 8 {
		return nil
	}
	n, length := int(binary.BigEndian.Uint32(raw)), int(binary.BigEndian.Uint32(raw[4:]))
	if n <= 0 || n > headerMax || length < 0 || 8+16*n+length > len(raw) {
		return nil
	}
	values := raw[8+16*n:][:length]
	text, epoch := map[uint32]string{}, ""
	wanted := map[uint32]bool{tagName: true, tagVersion: true, tagRelease: true, tagVendor: true, tagLicense: true, tagPackager: true, tagArch: true}
	for i := range n {
		e := raw[8+16*i:]
		tag, kind, at := binary.BigEndian.Uint32(e), binary.BigEndian.Uint32(e[4:]), binary.BigEndian.Uint32(e[8:])
		if int64(at) >= int64(length) {
			continue
		}
		v := values[at:]
		switch {
		case kind == typeString || kind == typeI18N:
			if !wanted[tag] {
				continue
			}
			wanted[tag] = false // each once: a header may name one long text in all of its entries
			if s, _, ok := bytes.Cut(v, []byte{0}); ok {
				text[tag] = string(s)
			}
		case kind == typeInt32 && tag == tagEpoch && len(v) >= 4:
			epoch = strconv.FormatUint(uint64(binary.BigEndian.Uint32(v)), 10)
		}
	}
	name := text[tagName]
	if name == "" || name == "gpg-pubkey" { // keys that signatures are checked with are kept among the packages
		return nil
	}
	version := text[tagVersion]
	if r := text[tagRelease]; r != "" {
		version += "-" + r
	}
	return []Package{{
		Type: "rpm", Space: d.id, Name: name, Version: version, Epoch: epoch, Arch: text[tagArch], Distro: d.String(),
		License: text[tagLicense], Supplier: cmp.Or(text[tagPackager], text[tagVendor]), Found: found,
	}}
}

// Sizes and marks of rpm's own database (rpm's rpmpkg.c): pages of slots, each with the place of a package's header, all numbers with the low
// byte first.
const (
	ndbMagic, ndbSlotMagic, ndbBlobMagic = "RpmP", "Slot", "BlbS"

	ndbPage, ndbSlot, ndbBlock = 4096, 16, 16
)

// ndbBlobs calls use for the packages' headers.
func ndbBlobs(f io.ReaderAt, size int64, use func([]byte)) {
	head := make([]byte, 2*ndbSlot)
	if _, err := f.ReadAt(head, 0); err != nil || string(head[:4]) != ndbMagic {
		return
	}
	slots := int64(binary.LittleEndian.Uint32(head[12:])) * ndbPage
	if slots > size || slots <= 0 {
		return
	}
	table := make([]byte, slots)
	if _, err := f.ReadAt(table, 0); err != nil {
		return
	}
	left := int64(4 * databaseMax) // slots may name one header many times
	for at := len(head); at+ndbSlot <= len(table); at += ndbSlot {
		slot := table[at:]
		if string(slot[:4]) != ndbSlotMagic || binary.LittleEndian.Uint32(slot[8:]) == 0 {
			continue
		}
		place := int64(binary.LittleEndian.Uint32(slot[8:])) * ndbBlock
		blob := make([]byte, ndbBlock)
		if _, err := f.ReadAt(blob, place); err != nil || string(blob[:4]) != ndbBlobMagic || !bytes.Equal(blob[4:8], slot[4:8]) {
			continue
		}
		length := int64(binary.LittleEndian.Uint32(blob[12:]))
		if left -= length; left < 0 || place+ndbBlock+length > size {
			continue
		}
		raw := make([]byte, length)
		if _, err := f.ReadAt(raw, place+ndbBlock); err == nil {
			use(raw)
		}
	}
}
