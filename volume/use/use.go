// Package use is the notes of who has which volume mounted, as files of this boot, so that the next engine knows them:
//
//	DIR/NAME/USER     holds the path the volume is mounted at, or nothing while that is not known yet
//
// A note is there before the mount is, and goes after it is gone: a crash in between leaves a note too many, never one too few.
// It never mounts anything and never decides who may.
package use

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Notes is a directory of notes. Calls about one volume must not overlap.
type Notes struct{ dir string }

// Open opens or makes the directory.
func Open(dir string) (Notes, error) { return Notes{dir}, os.MkdirAll(dir, 0o700) }

// Begin notes a user, before the work. fresh tells that he was not noted; path is where the volume was mounted for him already.
func (n Notes) Begin(name, user string) (path string, fresh bool, err error) {
	b, err := os.ReadFile(n.path(name, user))
	if err == nil {
		return string(b), false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	if err := os.MkdirAll(filepath.Join(n.dir, name), 0o700); err != nil {
		return "", false, err
	}
	return "", true, os.WriteFile(n.path(name, user), nil, 0o600)
}

// Done notes where the volume is mounted for a user.
func (n Notes) Done(name, user, path string) error {
	return os.WriteFile(n.path(name, user), []byte(path), 0o600)
}

// End removes the note of a user. The volume's directory of notes stays until Clear, since the mount may.
func (n Notes) End(name, user string) error {
	if err := os.Remove(n.path(name, user)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Noted reports whether a user is noted.
func (n Notes) Noted(name, user string) bool {
	_, err := os.Lstat(n.path(name, user))
	return err == nil
}

// Users lists who is noted for a volume.
func (n Notes) Users(name string) ([]string, error) {
	list, err := os.ReadDir(filepath.Join(n.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var users []string
	for _, e := range list {
		users = append(users, e.Name())
	}
	return users, err
}

// All lists all notes: by volume, its users. A volume without users is one whose mount may not be gone yet.
func (n Notes) All() (map[string][]string, error) {
	list, err := os.ReadDir(n.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := map[string][]string{}
	for _, e := range list {
		if all[e.Name()], err = n.Users(e.Name()); err != nil {
			return all, err
		}
	}
	return all, nil
}

// Clear forgets a volume that is not mounted any more.
func (n Notes) Clear(name string) error { return os.RemoveAll(filepath.Join(n.dir, name)) }

func (n Notes) path(name, user string) string { return filepath.Join(n.dir, name, user) }
