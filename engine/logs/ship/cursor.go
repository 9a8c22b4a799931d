package ship

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io/fs"
	"os"

	"berth/engine/logs"
)

// CursorSuffix is what a cursor's file has behind the spool's name.
const CursorSuffix = ".cursor"

const (
	slotLen = 128
	usedLen = 64
)

// mark is what a cursor says.
type mark struct {
	pos     logs.Pos
	sent    uint64 // records that were taken
	dropped uint64 // records that were passed over
}

// cursor is a mark that lasts.
type cursor struct {
	f   *os.File
	seq uint64
	mark
}

// openCursor reads the cursor at path, or begins one.
func openCursor(path string) (*cursor, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	c := &cursor{f: f}
	var b [2 * slotLen]byte
	if _, err := f.ReadAt(b[:slotLen], 0); err == nil {
		c.load(b[:slotLen])
	}
	if _, err := f.ReadAt(b[slotLen:], slotLen); err == nil {
		c.load(b[slotLen:])
	}
	return c, nil
}

// load takes a slot over if it is whole and newer.
func (c *cursor) load(b []byte) {
	seq := binary.LittleEndian.Uint64(b)
	if seq <= c.seq || binary.LittleEndian.Uint64(b[usedLen:]) != sum(b[:usedLen]) {
		return
	}
	c.seq = seq
	c.pos.Inode, c.pos.Off = binary.LittleEndian.Uint64(b[8:]), int64(binary.LittleEndian.Uint64(b[16:]))
	copy(c.pos.Head[:], b[24:48])
	c.sent, c.dropped = binary.LittleEndian.Uint64(b[48:]), binary.LittleEndian.Uint64(b[56:])
}

// set writes a mark. A disk that refuses it costs repetitions after a crash, nothing else.
func (c *cursor) set(m mark) error {
	c.mark = m
	c.seq++
	var b [slotLen]byte
	binary.LittleEndian.PutUint64(b[0:], c.seq)
	binary.LittleEndian.PutUint64(b[8:], m.pos.Inode)
	binary.LittleEndian.PutUint64(b[16:], uint64(m.pos.Off))
	copy(b[24:48], m.pos.Head[:])
	binary.LittleEndian.PutUint64(b[48:], m.sent)
	binary.LittleEndian.PutUint64(b[56:], m.dropped)
	binary.LittleEndian.PutUint64(b[usedLen:], sum(b[:usedLen]))
	_, err := c.f.WriteAt(b[:], int64(c.seq&1)*slotLen)
	return err
}

func (c *cursor) close() { c.f.Close() }

func sum(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

// Behind gives how many bytes of a spool were not shipped yet, by its cursor. No Shipper of it may be under way.
func Behind(spool string) int64 {
	if _, err := os.Lstat(spool + CursorSuffix); errors.Is(err, fs.ErrNotExist) {
		return logs.After(spool, logs.Pos{})
	}
	c, err := openCursor(spool + CursorSuffix)
	if err != nil {
		return 0
	}
	defer c.close()
	return logs.After(spool, c.pos)
}

// ReadMark tells how far the cursor of a spool has come: which file, how many records. There is none where nothing was shipped yet.
func ReadMark(spool string) (inode, sent, dropped uint64, ok bool) {
	if _, err := os.Lstat(spool + CursorSuffix); errors.Is(err, fs.ErrNotExist) {
		return 0, 0, 0, false
	}
	c, err := openCursor(spool + CursorSuffix)
	if err != nil {
		return 0, 0, 0, false
	}
	defer c.close()
	return c.pos.Inode, c.sent, c.dropped, c.seq > 0
}
