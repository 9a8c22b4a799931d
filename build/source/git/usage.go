package git

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"berth/base/fault"
	"berth/build/cache"
)

// usagePrefix begins the ids of mirrors among what builds keep.
const usagePrefix = "git-"

// Usage lists the mirrors.
func (s *Source) Usage(ctx context.Context) ([]cache.Usage, error) {
	list, err := os.ReadDir(s.cfg.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []cache.Usage
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		fi, err := e.Info()
		if err != nil || !fi.IsDir() {
			continue
		}
		dir := filepath.Join(s.cfg.Root, e.Name())
		remote, err := os.ReadFile(filepath.Join(dir, "remote"))
		if err != nil {
			continue
		}
		created := fi.ModTime()
		if at, err := os.Stat(filepath.Join(dir, "remote")); err == nil {
			created = at.ModTime()
		}
		s.mu.Lock()
		busy := s.locks[dir] != nil
		s.mu.Unlock()
		out = append(out, cache.Usage{
			ID: usagePrefix + e.Name(), Type: "regular", Description: "shared git repo for " + strings.TrimSpace(string(remote)),
			Size: sizeOf(dir), Created: created, LastUsed: fi.ModTime(), InUse: busy, Mutable: true,
		})
	}
	return out, nil
}

// Remove removes a mirror, unless git works in it.
func (s *Source) Remove(ctx context.Context, id string) error {
	name, ok := strings.CutPrefix(id, usagePrefix)
	if !ok || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return fault.New(fault.NotFound, "no such git mirror: %s", id)
	}
	dir := filepath.Join(s.cfg.Root, name)
	s.mu.Lock()
	busy := s.locks[dir] != nil
	s.mu.Unlock()
	if busy {
		return nil
	}
	unlock, err := s.lock(ctx, dir)
	if err != nil {
		return err
	}
	defer unlock()
	return os.RemoveAll(dir)
}

func sizeOf(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it may be going
		}
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return nil
	})
	return n
}
