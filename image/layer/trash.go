package layer

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"berth/base/failpoint"
	"berth/kernel/mount"
	"berth/kernel/tree"
)

// trash deletes directories in the background. A directory is renamed into it, which is when it is gone for everybody
// else; one worker deletes. When more than trashBacklog wait, take deletes itself: whoever removes faster than the
// disk can is slowed down to the disk's pace.
type trash struct {
	dir  string
	log  *slog.Logger
	work chan string
	stop chan struct{}
	done chan struct{}
	once sync.Once // closing

	mu      sync.Mutex
	pending int
	idle    chan struct{} // closed when pending falls to 0; nil when nobody waits
}

const trashBacklog = 128

func openTrash(dir string, log *slog.Logger) (*trash, error) {
	t := &trash{dir: dir, log: log, work: make(chan string, trashBacklog), stop: make(chan struct{}), done: make(chan struct{})}
	go t.run()
	// What a crash left.
	names, err := os.ReadDir(dir)
	if err != nil {
		t.close()
		return nil, err
	}
	for _, n := range names {
		t.enqueue(n.Name())
	}
	return t, nil
}

// take renames a directory into the trash and has it deleted. One that is not there is fine.
func (t *trash) take(path string) error {
	name, err := t.rename(path)
	if err == nil {
		t.enqueue(name)
	}
	return err
}

// rename puts a directory into the trash under a name that enqueue wants; "" when it is not there.
func (t *trash) rename(path string) (name string, err error) {
	if err := failpoint.Hit("layer/before-trash"); err != nil {
		return "", err
	}
	name = newName()
	err = os.Rename(path, filepath.Join(t.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return name, err
}

// sweep takes everything in a directory.
func (t *trash) sweep(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		path := filepath.Join(dir, n.Name())
		err := t.take(path)
		if err != nil { // on old kernels a crash may leave a mount on a scratch directory
			if err = mount.Unmount(path); err == nil {
				err = t.take(path)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// enqueue has a name in the trash deleted, by the worker or, when too many wait, here.
func (t *trash) enqueue(name string) {
	if name == "" {
		return
	}
	t.mu.Lock()
	t.pending++
	t.mu.Unlock()
	select {
	case t.work <- name:
	default:
		t.remove(name)
	}
}

func (t *trash) run() {
	defer close(t.done)
	for {
		select {
		case <-t.stop:
			return
		case name := <-t.work:
			t.remove(name)
		}
	}
}

func (t *trash) remove(name string) {
	_ = failpoint.Hit("layer/in-trash")
	if err := removeAll(t.dir, name); err != nil {
		t.log.Warn("delete from trash; tried again at the next start", "name", name, "err", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending--
	if t.pending == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// removeAll deletes what is called name in a directory, however deep it is.
func removeAll(dir, name string) error {
	d, err := tree.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.RemoveAll(name)
}

// wait returns when nothing is pending.
func (t *trash) wait(ctx context.Context) error {
	t.mu.Lock()
	if t.pending == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends the worker after the directory it is at; what waits is found by the next openTrash.
func (t *trash) close() {
	t.once.Do(func() { close(t.stop) })
	<-t.done
}
