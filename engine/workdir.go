package engine

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/container"
	"berth/engine/mergedroot"
	"berth/kernel/mount"
	"berth/kernel/overlay"
	"berth/kernel/tree"
)

// makeWorkingDir makes the working directory of a container that is being created, where its image has none: what is copied there
// before the first start finds it. What the container mounts does not count yet; a launch makes the directory in there.
func (e *Engine) makeWorkingDir(r *container.Record) error {
	dir := path.Clean("/" + r.Spec.Process.WorkingDir)
	if dir == "/" {
		return nil
	}
	l, err := e.images.Layer(r.ID)
	if err != nil {
		return err
	}
	to, err := missingDir(l, dir)
	if err != nil || to == "" {
		return err
	}
	scratch, err := os.MkdirTemp(e.cfg.ExecRoot, "workdir-")
	if err != nil {
		return fault.In(err, "make the working directory")
	}
	defer os.Remove(scratch)
	leave, err := mount.Private(func() error {
		fd, err := overlay.Stack{Lower: l.Lower, Upper: l.Upper, Work: l.Work}.Mount(e.facts, scratch)
		if err != nil {
			return err
		}
		if err := mount.Attach(fd, scratch); err != nil {
			return err
		}
		root, err := tree.OpenDir(scratch)
		if err != nil {
			return err
		}
		defer root.Close()
		return makeDirs(root, to)
	})
	if err != nil {
		return fault.In(err, "make the working directory %s", dir)
	}
	leave()
	return nil
}

// missingDir gives the path that dir leads to if nothing is there, "" if it is a directory.
func missingDir(l Layer, dir string) (string, error) {
	root, err := mergedroot.Open(l.Upper, l.Lower)
	if err != nil {
		return "", fault.In(err, "look for the working directory")
	}
	defer root.Close()
	info, err := root.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return "", nil
	case err == nil, errors.Is(err, unix.ENOTDIR):
		return "", fault.New(fault.Invalid, "Cannot mkdir: %s is not a directory", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return "", nil // a circle of links, which may be mounted over; else the start refuses it
	}
	return root.Follow(dir)
}

// makeDirs makes the directories of a path below root, for root and 0755, and leaves those that are there as they are.
func makeDirs(root *tree.Dir, name string) error {
	at := root
	for _, word := range strings.FieldsFunc(name, func(r rune) bool { return r == '/' }) {
		sub, err := at.Sub(word)
		if tree.Missing(err) {
			if err = at.Mkdir(word, 0o755); err == nil {
				err = at.Chmod(word, 0o755)
			}
			if err == nil {
				sub, err = at.Sub(word)
			}
		}
		if at != root {
			at.Close()
		}
		if err != nil {
			return err
		}
		at = sub
	}
	if at != root {
		at.Close()
	}
	return nil
}
