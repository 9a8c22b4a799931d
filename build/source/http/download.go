package http

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	nethttp "net/http"
	"time"

	"github.com/moby/buildkit/util/pgpsign"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/snapshot"
	"berth/kernel/tree"
)

// download is a file that has arrived, in a draft of its own.
type download struct {
	draft *snapshot.Draft
	name  string
	sum   digest.Digest // sha256
	other digest.Digest // by the checksum's algorithm, where that is another one
}

// status tells how far a download is; it is solver.Run's.
type status func(id, action string, current, total int64, done bool)

// filePerm is the mode of a downloaded file unless the build says otherwise.
const filePerm = 0o600

// save writes an answer's body into a draft.
func (s *Source) save(ctx context.Context, a *address, resp *nethttp.Response, name string, modified *time.Time, st status) (d *download, err error) {
	scratch := s.cfg.Snapshots.Scratch()
	defer scratch.Release()
	draft, err := s.cfg.Snapshots.Draft(ctx, scratch)
	if err != nil {
		return nil, err
	}
	d = &download{draft: draft, name: name}
	defer func() {
		if err != nil {
			d.drop()
		}
	}()
	var other digest.Digester
	if a.checksum != "" && a.checksum.Algorithm() != digest.SHA256 {
		other = a.checksum.Algorithm().Digester()
	}
	sum := sha256.New()
	err = draft.Do(ctx, func(root *tree.Dir) error {
		f, err := root.Create(name, filePerm)
		if err != nil {
			return err
		}
		defer f.Close()
		w := &writer{f: f, sum: sum, st: st, name: name, total: max(resp.ContentLength, 0), max: s.cfg.MaxBytes}
		if other != nil {
			w.other = other.Hash()
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{resp.Body}, make([]byte, 256<<10)); err != nil {
			return fault.In(err, "download")
		}
		w.tell(true)
		return a.dress(f, modified)
	})
	if err != nil {
		return d, err
	}
	d.sum = digest.NewDigest(digest.SHA256, sum)
	if other != nil {
		d.other = other.Digest()
	}
	return d, nil
}

// dress gives the file the looks that the build wants. Without a time from the server it is of 1970, so that two downloads are the same.
func (a *address) dress(f *tree.File, modified *time.Time) error {
	if a.uid != 0 || a.gid != 0 {
		if err := f.Chown(a.uid, a.gid); err != nil {
			return err
		}
	}
	perm := a.perm
	if perm == 0 {
		perm = filePerm
	}
	if err := f.Chmod(perm & tree.PermMask); err != nil {
		return err
	}
	var t tree.Time
	if modified != nil {
		t.Sec = modified.Unix()
	}
	return f.Chtimes(t, t)
}

// digestFor gives the digest of the download by the algorithm of want.
func (d *download) digestFor(want digest.Digest) digest.Digest {
	if d.other != "" && want != "" && want.Algorithm() == d.other.Algorithm() {
		return d.other
	}
	return d.sum
}

// seal makes the snapshot and ends the download.
func (d *download) seal(ctx context.Context) (*snapshot.Snapshot, error) {
	snap, err := d.draft.Seal(ctx)
	if err != nil {
		d.draft.Drop()
	}
	return snap, err
}

func (d *download) drop() { d.draft.Drop() }

// read gives f the file's content.
func (d *download) read(ctx context.Context, f func(io.Reader) error) error {
	return d.draft.Do(ctx, func(root *tree.Dir) error {
		file, err := root.OpenFile(d.name)
		if err != nil {
			return err
		}
		defer file.Close()
		return f(file)
	})
}

// verify checks the file's signature.
func (d *download) verify(ctx context.Context, s *signature) error {
	return d.read(ctx, func(r io.Reader) error {
		err := pgpsign.VerifyArmoredDetachedSignature(r, s.armored, s.key, nil)
		return fault.Wrap(fault.Forbidden, err, "failed to verify pgp signature")
	})
}

// writer writes, hashes, counts and tells.
type writer struct {
	f          *tree.File
	sum, other hash.Hash
	st         status
	name       string
	n, total   int64
	max        int64
	told       time.Time
}

// Write writes p.
func (w *writer) Write(p []byte) (int, error) {
	if w.n+int64(len(p)) > w.max {
		return 0, fault.New(fault.Invalid, "the file is larger than %d bytes", w.max)
	}
	n, err := w.f.Write(p)
	w.sum.Write(p[:n])
	if w.other != nil {
		w.other.Write(p[:n])
	}
	w.n += int64(n)
	if now := time.Now(); now.Sub(w.told) > 200*time.Millisecond {
		w.told = now
		w.tell(false)
	}
	return n, err
}

func (w *writer) tell(done bool) {
	if w.st != nil {
		w.st(w.name, "downloading", w.n, w.total, done)
	}
}
