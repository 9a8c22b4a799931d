package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A disk is a block device that remembers every write and every flush, in their order: a loop device over the one file of a FUSE file
// system that this process serves. From what it remembers, the state can be made that a power cut at any moment leaves: what was
// flushed is there; of what was written since, anything may be.
//
//	berthd ── ext4 ── /dev/loopN ── FUSE ── disk{log}
type disk struct {
	dir  string // mount point of the FUSE file system
	loop string // /dev/loopN
	size int64
	fuse *os.File

	mu     sync.Mutex
	blocks map[int64]*block // by number; what is not there is zero
	log    []write
	fail   func(n int) bool // tells which writes fail, by their place in the log; nil: none

	silent map[uint32]bool // requests that are never answered; see hang_test.go
	heard  chan struct{}   // gets a value for each of them
}

const blockSize = 4096

type block [blockSize]byte

// write is an entry of the log. data nil: a flush, which makes all before it durable.
type write struct {
	at   int64
	data []byte
}

// newDisk makes a disk with the content of an image, and attaches it.
func newDisk(t *testing.T, image string) *disk {
	t.Helper()
	d := &disk{dir: t.TempDir(), blocks: map[int64]*block{}}
	d.read(t, image)
	served := d.mount(t)
	t.Cleanup(func() {
		if d.loop != "" {
			exec.Command("losetup", "-d", d.loop).Run()
		}
		for range 200 { // the loop device lets its file go a moment later
			if unix.Unmount(d.dir, 0) == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		unix.Unmount(d.dir, unix.MNT_FORCE)
		unix.Unmount(d.dir, unix.MNT_DETACH)
		<-served
		d.close()
	})
	d.loop = attach(t, filepath.Join(d.dir, "disk"))
	return d
}

// mount mounts the file system and serves it until the channel is closed.
func (d *disk) mount(t *testing.T) (served chan struct{}) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs FUSE: /dev/fuse: %v", err)
	}
	d.fuse = os.NewFile(uintptr(fd), "/dev/fuse")
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("berth-test-disk", d.dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		d.fuse.Close()
		t.Skipf("needs FUSE: mount: %v", err)
	}
	served = make(chan struct{})
	go func() { defer close(served); d.serve() }()
	return served
}

func (d *disk) close() { d.fuse.Close() }

// attach makes a loop device of a file.
func attach(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command("losetup", "-f", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("needs a free loop device: losetup: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func detach(loop string) { exec.Command("losetup", "-d", loop).Run() }

// ext4Image makes a file with an empty ext4.
func ext4Image(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	// Nothing is left to be made later behind our back.
	out, err := exec.Command("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=8", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", path).CombinedOutput()
	if err != nil {
		t.Skipf("needs mkfs.ext4: %v: %s", err, out)
	}
	return path
}

// read takes the content of a sparse file.
func (d *disk) read(t *testing.T, image string) {
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	d.size = int64(len(b))
	for n := int64(0); n*blockSize < d.size; n++ {
		if c := b[n*blockSize : (n+1)*blockSize]; !zero(c) {
			d.blocks[n] = (*block)(slices.Clone(c))
		}
	}
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// now gives the length of the log.
func (d *disk) now() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.log)
}

// failWrites makes writes fail from now on as which tells; nil: none.
func (d *disk) failWrites(which func(n int) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = which
}

// afterCut writes into a new file what a power cut leaves that comes when the log has n entries. start is the disk as it was before the log.
func (d *disk) afterCut(t *testing.T, start *disk, n int, r *rand.Rand) (path, what string) {
	t.Helper()
	flushed := n
	for flushed > 0 && d.log[flushed-1].data != nil {
		flushed--
	}
	after := map[int64]*block{}
	own := map[int64]bool{} // blocks of after that are not start's
	for k, b := range start.blocks {
		after[k] = b
	}
	apply := func(w write) {
		for off := 0; off < len(w.data); {
			k, in := (w.at+int64(off))/blockSize, int((w.at+int64(off))%blockSize)
			if !own[k] {
				b := new(block)
				if old := after[k]; old != nil {
					*b = *old
				}
				after[k], own[k] = b, true
			}
			off += copy(after[k][in:], w.data[off:])
		}
	}
	for _, w := range d.log[:flushed] {
		apply(w)
	}
	pending, kept := d.log[flushed:n], 0
	mode := r.IntN(4)
	what = [...]string{"all that was not flushed is lost", "all is there", "some of it is there", "some of it is there, torn"}[mode]
	for _, w := range pending {
		switch {
		case mode == 0, mode >= 2 && r.IntN(2) == 0:
			continue
		case mode == 3 && r.IntN(4) == 0: // a disk writes sectors of 512 bytes whole
			w.data = w.data[:r.IntN(len(w.data)/512+1)*512]
		}
		apply(w)
		kept++
	}
	what = fmt.Sprintf("cut at write %d: %d of %d not flushed are there (%s)", n, kept, len(pending), what)
	path = filepath.Join(t.TempDir(), "after")
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(d.size)
	}
	for k, b := range after {
		if err == nil {
			_, err = f.WriteAt(b[:], k*blockSize)
		}
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, what
}

// The messages of FUSE that a kernel sends about one file; see linux/fuse.h, protocol 7.31.
const (
	fuseLookup   = 1
	fuseForget   = 2
	fuseGetattr  = 3
	fuseSetattr  = 4
	fuseOpen     = 14
	fuseRead     = 15
	fuseWrite    = 16
	fuseRelease  = 18
	fuseFsync    = 20
	fuseFlush    = 25
	fuseInit     = 26
	fuseIntr     = 36
	fuseForgets  = 42
	fuseMaxWrite = 1 << 20
	fuseDirectIO = 1 // of OPEN's answer: no page cache between the loop device and us
)

// serve answers the kernel until the mount is gone.
func (d *disk) serve() {
	buf := make([]byte, fuseMaxWrite+8192)
	fd := int(d.fuse.Fd())
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return
		}
		le := binary.LittleEndian
		op, unique, node := le.Uint32(buf[4:]), le.Uint64(buf[8:]), le.Uint64(buf[16:])
		if op == fuseForget || op == fuseForgets || op == fuseIntr {
			continue
		}
		if d.silent[op] {
			d.heard <- struct{}{}
			continue
		}
		out, errno := d.answer(op, node, buf[40:n])
		reply := make([]byte, 16, 16+len(out))
		le.PutUint32(reply, uint32(16+len(out)))
		le.PutUint32(reply[4:], uint32(-int32(errno)))
		le.PutUint64(reply[8:], unique)
		unix.Write(fd, append(reply, out...))
	}
}

func (d *disk) answer(op uint32, node uint64, in []byte) ([]byte, unix.Errno) {
	le := binary.LittleEndian
	switch op {
	case fuseInit:
		out := make([]byte, 64)
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[8:], le.Uint32(in[8:])) // read ahead
		le.PutUint32(out[12:], 1<<5|1<<22)       // big writes, as many pages as max_pages says
		le.PutUint16(out[16:], 64)
		le.PutUint16(out[18:], 48)
		le.PutUint32(out[20:], fuseMaxWrite)
		le.PutUint32(out[24:], 1)
		le.PutUint16(out[28:], fuseMaxWrite/4096)
		return out, 0
	case fuseLookup:
		if string(in) != "disk\x00" {
			return nil, unix.ENOENT
		}
		out := make([]byte, 40, 128)
		le.PutUint64(out, 2)
		le.PutUint64(out[16:], 3600)
		le.PutUint64(out[24:], 3600)
		return append(out, d.attr(2)...), 0
	case fuseGetattr, fuseSetattr:
		out := make([]byte, 16, 104)
		le.PutUint64(out, 3600)
		return append(out, d.attr(node)...), 0
	case fuseOpen:
		out := make([]byte, 16)
		le.PutUint32(out[8:], fuseDirectIO)
		return out, 0
	case fuseRead:
		return d.readAt(int64(le.Uint64(in[8:])), int(le.Uint32(in[16:]))), 0
	case fuseWrite:
		size := int(le.Uint32(in[16:]))
		if !d.writeAt(int64(le.Uint64(in[8:])), in[40:40+size]) {
			return nil, unix.EIO
		}
		out := make([]byte, 8)
		le.PutUint32(out, uint32(size))
		return out, 0
	case fuseFsync:
		d.mu.Lock()
		d.log = append(d.log, write{})
		d.mu.Unlock()
		return nil, 0
	case fuseFlush, fuseRelease:
		return nil, 0
	}
	return nil, unix.ENOSYS
}

// attr is struct fuse_attr of the root directory (1) or the file (2).
func (d *disk) attr(node uint64) []byte {
	le := binary.LittleEndian
	a := make([]byte, 88)
	le.PutUint64(a, node)
	mode := uint32(unix.S_IFDIR | 0o700)
	if node == 2 {
		mode = unix.S_IFREG | 0o600
		le.PutUint64(a[8:], uint64(d.size))
		le.PutUint64(a[16:], uint64(d.size/512))
	}
	le.PutUint32(a[60:], mode)
	le.PutUint32(a[64:], 1)
	le.PutUint32(a[80:], blockSize)
	return a
}

func (d *disk) readAt(at int64, size int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	size = int(max(0, min(int64(size), d.size-at)))
	out := make([]byte, size)
	for off := 0; off < size; {
		k, in := (at+int64(off))/blockSize, int((at+int64(off))%blockSize)
		n := min(blockSize-in, size-off)
		if b := d.blocks[k]; b != nil {
			copy(out[off:off+n], b[in:])
		}
		off += n
	}
	return out
}

func (d *disk) writeAt(at int64, data []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil && d.fail(len(d.log)) {
		return false
	}
	data = slices.Clone(data)
	d.log = append(d.log, write{at, data})
	for off := 0; off < len(data); {
		k, in := (at+int64(off))/blockSize, int((at+int64(off))%blockSize)
		if d.blocks[k] == nil {
			d.blocks[k] = new(block)
		}
		off += copy(d.blocks[k][in:], data[off:])
	}
	return true
}

// snapshot is the disk as it is now, without a log.
func (d *disk) snapshot() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &disk{size: d.size, blocks: map[int64]*block{}}
	for k, b := range d.blocks {
		c := *b
		s.blocks[k] = &c
	}
	d.log = nil
	return s
}
