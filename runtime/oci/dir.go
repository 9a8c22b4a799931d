package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// The files in a container's directory.
const (
	configFile = "config.json"
	stateFile  = "state.json"
	fifoFile   = "exec.fifo"
)

// The errors that callers of runc recognise by their words.
var (
	errExist      = fault.New(fault.Conflict, "container with given ID already exists")
	errNotExist   = fault.New(fault.NotFound, "container does not exist")
	errNotRunning = fault.New(fault.Conflict, "container not running")
	errEmptyID    = fault.New(fault.Invalid, "container id cannot be empty")
)

// lockPatience is how long a command waits for another one on the same container.
const lockPatience = 30 * time.Second

// container is one container's directory, and what stands in it.
type container struct {
	tool *tool
	id   string
	dir  string
	lock int // descriptor of dir that holds the lock, or -1
	rec  *record
}

// checkID applies runc's rule: letters, digits and _ + - . make an id, and it must be a file name.
func checkID(id string) error {
	if id == "" {
		return errEmptyID
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '+', c == '-', c == '.':
		default:
			return fault.New(fault.Invalid, "invalid container ID format: %q", id)
		}
	}
	if id == "." || id == ".." || len(id) > 1024 {
		return fault.New(fault.Invalid, "invalid container ID format: %q", id)
	}
	return nil
}

// newContainer makes the directory of a container that does not exist yet, locked. Its files are
// private; the directory itself may be passed through, since a container's root user that is not
// ours must reach the fifo.
func (t *tool) newContainer(id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	c := &container{tool: t, id: id, dir: t.root + "/" + id, lock: -1}
	err := unix.Mkdir(c.dir, 0o711)
	if err == unix.ENOENT {
		if err := os.MkdirAll(t.root, 0o711); err != nil {
			return nil, err
		}
		err = unix.Mkdir(c.dir, 0o711)
	}
	switch err {
	case nil:
	case unix.EEXIST:
		return nil, errExist
	default:
		return nil, &os.PathError{Op: "mkdir", Path: c.dir, Err: err}
	}
	if err := c.acquire(); err != nil {
		os.Remove(c.dir)
		return nil, err
	}
	return c, nil
}

// load finds an existing container by what state.json says.
func (t *tool) load(id string) (*container, error) {
	c, err := t.find(id)
	if err != nil {
		return nil, err
	}
	if c.rec == nil {
		return nil, errNotExist
	}
	return c, nil
}

// find is load that also finds a container whose create never got as far as state.json; its rec is nil.
func (t *tool) find(id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	c := &container{tool: t, id: id, dir: t.root + "/" + id, lock: -1}
	if err := c.read(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if c.rec == nil && unix.Access(c.dir, unix.F_OK) != nil {
		return nil, errNotExist
	}
	return c, nil
}

// loadLocked is load for commands that change the container.
func (t *tool) loadLocked(id string) (*container, error) {
	c, err := t.load(id)
	if err != nil {
		return nil, err
	}
	if err := c.acquire(); err != nil {
		return nil, err
	}
	return c, c.read() // what another command did while we waited
}

// read takes in state.json.
func (c *container) read() error {
	data, err := readFile(c.dir + "/" + stateFile)
	if err != nil {
		return err
	}
	if c.rec, err = decodeRecord(data); err != nil {
		return fmt.Errorf("container %s: %w", c.id, err)
	}
	return nil
}

// acquire takes the directory's lock, waiting a while for whoever has it. A directory that was
// deleted meanwhile is a container that does not exist.
func (c *container) acquire() error {
	fd, err := unix.Open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errNotExist
	}
	for begin := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Since(begin) > lockPatience {
			unix.Close(fd)
			return fault.New(fault.Unavailable, "container %s is busy with another command: %v", c.id, err)
		}
	}
	var held, named unix.Stat_t
	if unix.Fstat(fd, &held) != nil || unix.Stat(c.dir, &named) != nil || held.Ino != named.Ino || held.Dev != named.Dev {
		unix.Close(fd)
		return errNotExist
	}
	c.lock = fd
	return nil
}

// release gives the lock back. Commands that are about to exit need not.
func (c *container) release() {
	if c.lock >= 0 {
		unix.Close(c.lock)
		c.lock = -1
	}
}

// save writes state.json whole, under another name first.
func (c *container) save() error {
	temp := c.dir + "/." + stateFile
	if err := writeFile(temp, c.rec.encode(), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, c.dir+"/"+stateFile)
}

// config reads the configuration as it was at create.
func (c *container) config() (*configuration, error) {
	return loadConfig(c.dir + "/" + configFile)
}

// remove deletes the directory with all that is in it.
func (c *container) remove() error {
	for _, f := range []string{stateFile, fifoFile, configFile} {
		_ = unix.Unlink(c.dir + "/" + f)
	}
	if err := unix.Rmdir(c.dir); err == nil || err == unix.ENOENT {
		return nil
	}
	return os.RemoveAll(c.dir)
}

// ids lists the containers below the root, in order.
func (t *tool) ids() ([]string, error) {
	entries, err := os.ReadDir(t.root)
	if errors.Is(err, fs.ErrNotExist) && !t.rootSet {
		return nil, nil // nothing was ever created
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && checkID(e.Name()) == nil && e.Name()[0] != '.' {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// readFile reads a small file with bare system calls, which is cheaper than an os.File. Errors name
// the file.
func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	size := 4096
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0 && st.Size < 1<<24 {
		size = int(st.Size) + 1
	}
	b := make([]byte, 0, size)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return b, nil
		default:
			b = b[:len(b)+n]
		}
	}
}

// writeFile makes or empties a file and writes data to it. Errors name the file.
func writeFile(path string, data []byte, mode uint32) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return &os.PathError{Op: "write", Path: path, Err: err}
		}
		data = data[max(n, 0):]
	}
	if err := unix.Close(fd); err != nil {
		return &os.PathError{Op: "close", Path: path, Err: err}
	}
	return nil
}

// writePIDFile writes the process id for a supervisor, which must never see half a number.
func writePIDFile(path string, pid int) error {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := writeFile(temp, fmt.Append(nil, pid), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
