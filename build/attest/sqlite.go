package attest

import (
	"encoding/binary"
	"io"

	"berth/base/fault"
)

// A reader of tables in SQLite's file format (https://www.sqlite.org/fileformat2.html): rpm keeps its database so, and a bill of materials needs
// its rows in any order and nothing else. The file may be anybody's: each page is read once, and what is read of it is bounded.

// database is a file.
type database struct {
	f      io.ReaderAt
	size   int64
	page   int64           // size of a page
	usable int64           // of it
	seen   map[uint32]bool // pages of trees
	left   int64           // bytes of rows that may still be read
}

// Kinds of pages, as far as tables have them.
const (
	interiorTable = 5
	leafTable     = 13
)

const (
	sqliteMagic  = "SQLite format 3\x00"
	sqliteHeader = 100 // bytes at the beginning of the first page
)

var errDatabase = fault.New(fault.Invalid, "no SQLite database, or a damaged one")

// tableRows calls use for the rows of a table, with their columns as SQLite's integers (int64) and bytes ([]byte); others are nil.
func tableRows(f io.ReaderAt, size int64, table string, use func(columns []any)) error {
	head := make([]byte, sqliteHeader)
	if _, err := f.ReadAt(head, 0); err != nil || string(head[:16]) != sqliteMagic {
		return errDatabase
	}
	db := &database{f: f, size: size, page: int64(binary.BigEndian.Uint16(head[16:])), seen: map[uint32]bool{}, left: 4 * databaseMax}
	if db.page == 1 {
		db.page = 65536
	}
	db.usable = db.page - int64(head[20])
	if db.page < 512 || db.usable < 480 {
		return errDatabase
	}
	root := uint32(0)
	err := db.walk(1, 0, func(c []any) {
		if len(c) < 4 {
			return
		}
		kind, _ := c[0].([]byte)
		name, _ := c[1].([]byte)
		n, _ := c[3].(int64)
		if string(kind) == "table" && string(name) == table {
			root = uint32(n)
		}
	})
	if err != nil || root == 0 {
		return errDatabase
	}
	return db.walk(root, 0, use)
}

// read reads a page, whose numbers begin with 1.
func (db *database) read(n uint32) ([]byte, error) {
	if n == 0 || int64(n) > db.size/db.page {
		return nil, errDatabase
	}
	b := make([]byte, db.page)
	if _, err := db.f.ReadAt(b, int64(n-1)*db.page); err != nil {
		return nil, errDatabase
	}
	return b, nil
}

// walk visits the rows of a tree.
func (db *database) walk(n uint32, depth int, use func([]any)) error {
	if db.seen[n] || depth > 20 {
		return errDatabase
	}
	db.seen[n] = true
	b, err := db.read(n)
	if err != nil {
		return err
	}
	h := b
	if n == 1 {
		h = b[sqliteHeader:]
	}
	kind, cells, pointers := h[0], int(binary.BigEndian.Uint16(h[3:])), 8
	if kind == interiorTable {
		pointers = 12
	} else if kind != leafTable {
		return errDatabase
	}
	if pointers+2*cells > len(h) {
		return errDatabase
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(h[pointers+2*i:]))
		if at+4 > len(b) {
			return errDatabase
		}
		if kind == interiorTable {
			err = db.walk(binary.BigEndian.Uint32(b[at:]), depth+1, use)
		} else {
			err = db.row(b[:db.usable], at, use)
		}
		if err != nil {
			return err
		}
	}
	if kind == interiorTable {
		return db.walk(binary.BigEndian.Uint32(h[8:]), depth+1, use)
	}
	return nil
}

// row reads the row of a cell, with what of it lies on overflow pages.
func (db *database) row(b []byte, at int, use func([]any)) error {
	if at > len(b) {
		return errDatabase
	}
	length, n := varint(b[at:])
	_, m := varint(b[at+n:]) // its number
	if n == 0 || m == 0 || length < 0 {
		return errDatabase
	}
	at += n + m
	local := length
	if most := db.usable - 35; length > most {
		least := (db.usable-12)*32/255 - 23
		if local = least + (length-least)%(db.usable-4); local > most {
			local = least
		}
	}
	if db.left -= length; db.left < 0 || int64(at)+local > int64(len(b)) {
		return errDatabase
	}
	payload := append([]byte(nil), b[at:at+int(local)]...)
	if local < length {
		if at+int(local)+4 > len(b) {
			return errDatabase
		}
		next := binary.BigEndian.Uint32(b[at+int(local):])
		for int64(len(payload)) < length { // each page gives some, so that a circle ends
			page, err := db.read(next)
			if err != nil {
				return err
			}
			next = binary.BigEndian.Uint32(page)
			payload = append(payload, page[4:4+min(db.usable-4, length-int64(len(payload)))]...)
		}
	}
	columns, ok := record(payload)
	if !ok {
		return errDatabase
	}
	use(columns)
	return nil
}

// record reads the columns of a row: a header of their types, and their values.
func record(b []byte) (columns []any, ok bool) {
	size, n := varint(b)
	if n == 0 || size < int64(n) || size > int64(len(b)) {
		return nil, false
	}
	types, body := b[n:size], b[size:]
	for len(types) > 0 {
		kind, n := varint(types)
		if n == 0 || len(columns) > 100 {
			return nil, false
		}
		types = types[n:]
		var length int64
		switch {
		case kind >= 12:
			length = (kind - 12) / 2
		case kind >= 1 && kind <= 4:
			length = kind
		case kind == 5:
			length = 6
		case kind == 6 || kind == 7:
			length = 8
		case kind < 0 || kind == 10 || kind == 11:
			return nil, false
		}
		if length > int64(len(body)) {
			return nil, false
		}
		value := body[:length]
		body = body[length:]
		switch {
		case kind >= 12:
			columns = append(columns, value)
		case kind == 8 || kind == 9:
			columns = append(columns, kind-8)
		case kind >= 1 && kind <= 6:
			v := int64(int8(value[0]))
			for _, c := range value[1:] {
				v = v<<8 | int64(c)
			}
			columns = append(columns, v)
		default: // NULL, and numbers with a point
			columns = append(columns, nil)
		}
	}
	return columns, true
}

// varint reads SQLite's number of one to nine bytes; n is 0 where there is none.
func varint(b []byte) (v int64, n int) {
	for n < len(b) {
		c := b[n]
		n++
		if n == 9 {
			return v<<8 | int64(c), n
		}
		v = v<<7 | int64(c&0x7f)
		if c < 0x80 {
			return v, n
		}
	}
	return 0, 0
}
