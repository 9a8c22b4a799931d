package htpasswd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"berth/auth"
	"berth/auth/secret"
	"berth/base/fault"
)

// maxFile is the largest file that is read, in bytes.
const maxFile = 16 << 20

// settled is how old a file must be for its time to tell whether it has changed: file systems keep times in ticks, and
// a second change within one is not seen.
const settled = 2 * time.Second

// File is a password file. It is an auth.Directory.
type File struct {
	path string
	log  *slog.Logger

	mu    sync.Mutex
	seen  os.FileInfo // of what was read; nil: read again
	read  time.Time
	table Table
}

// Open reads the file and logs its problems. It is read again whenever it has changed.
func Open(path string, log *slog.Logger) (*File, error) {
	f := &File{path: path, log: log}
	_, err := f.current()
	return f, err
}

// Password compares the password with the file's hash.
func (f *File) Password(ctx context.Context, user, password string) (auth.User, error) {
	if err := auth.Check(user, password); err != nil {
		return auth.User{}, err
	}
	t, err := f.current()
	if err != nil {
		return auth.User{}, err
	}
	hash, known := t.hashes[user]
	if !known {
		return auth.User{}, nobody(secret.Waste(ctx, password, t.cost))
	}
	ok, err := secret.Match(ctx, hash, password)
	switch {
	case err != nil:
		return auth.User{}, err
	case !ok:
		return auth.User{}, auth.ErrPassword
	}
	return found(user, hash), nil
}

// Lookup says whether the file has the user.
func (f *File) Lookup(_ context.Context, user string) (auth.User, error) {
	t, err := f.current()
	if err != nil {
		return auth.User{}, err
	}
	hash, known := t.hashes[user]
	if !known {
		return auth.User{}, auth.ErrNoUser
	}
	return found(user, hash), nil
}

// Problems gives what is wrong with the file as it is now.
func (f *File) Problems() ([]Problem, error) {
	t, err := f.current()
	return t.Problems, err
}

// Len gives the number of users that can sign in.
func (f *File) Len() (int, error) {
	t, err := f.current()
	return len(t.hashes), err
}

func found(user, hash string) auth.User {
	sum := sha256.Sum256([]byte(hash))
	return auth.User{Name: user, Source: "htpasswd", Stamp: hex.EncodeToString(sum[:8])}
}

// nobody is the answer for an unknown name after time was spent on it; err is why the spending was cut short.
func nobody(err error) error {
	if err != nil {
		return err
	}
	return auth.ErrNoUser
}

// current gives the file's content, read again when the file has changed.
func (f *File) current() (Table, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := os.Stat(f.path)
	if err != nil {
		f.seen = nil
		return Table{}, fault.Wrap(fault.Unavailable, err, "password file")
	}
	if f.seen != nil && same(f.seen, now) && f.read.Sub(now.ModTime()) > settled {
		return f.table, nil
	}
	file, err := os.Open(f.path)
	if err != nil {
		f.seen = nil
		return Table{}, fault.Wrap(fault.Unavailable, err, "password file")
	}
	defer file.Close()
	read := time.Now()
	if now, err = file.Stat(); err != nil {
		return Table{}, fault.Wrap(fault.Unavailable, err, "password file")
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fault.New(fault.Invalid, "%s is larger than %d bytes", f.path, maxFile)
	}
	if err != nil {
		f.seen = nil
		return Table{}, fault.Wrap(fault.Unavailable, err, "password file")
	}
	first := f.seen == nil || !same(f.seen, now)
	f.table, f.seen, f.read = Parse(text), now, read
	if first && f.log != nil {
		for _, p := range f.table.Problems {
			f.log.Warn("password file", "file", f.path, "line", p.Line, "user", p.User, "problem", p.Text)
		}
	}
	return f.table, nil
}

func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
