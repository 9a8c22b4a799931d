package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/kernel/tree"
	"berth/volume/content"
	"berth/volume/local"
)

// fillingFile in a volume's directory says that its content is an image's, half copied.
const fillingFile = "filling"

// Fill copies what an image has at a volume's place into the volume: the content of the directory from, and its owner,
// permissions and attributes. Only an empty volume (or subpath) is filled; for another Fill does nothing. A crash in between leaves
// an empty volume where nobody else has it mounted.
func (v *Volumes) Fill(ctx context.Context, name, subpath string, from *os.File) error {
	if err := CheckSubpath(subpath); err != nil {
		return err
	}
	src, err := tree.OpenFD(int(from.Fd()))
	if err != nil {
		return fault.In(err, "fill volume %s", name)
	}
	err = v.letGo(ctx, func() error {
		defer src.Close()
		return v.inside(ctx, name, func(rec *Volume, root *tree.Dir) error { return v.fill(ctx, rec, root, subpath, src) })
	})
	return fault.In(err, "fill volume %s", name)
}

func (v *Volumes) fill(ctx context.Context, rec *Volume, root *tree.Dir, subpath string, src *tree.Dir) error {
	to, _, err := root.Open(subpath)
	if err != nil {
		return err
	}
	defer to.Close()
	if empty, err := content.Empty(to); err != nil || !empty || rec.SnapshotOf != "" {
		return err
	}
	nothing, err := content.Empty(src)
	if err != nil {
		return err
	}
	if nothing { // as most images have it: there is only an owner to take over
		return content.Dress(src, to)
	}
	alone := len(v.references(rec.Name)) <= 1 // the container that it is filled for, which refers to it while it is being created
	marked := alone && rec.Driver == localDriver && subpath == "" && !v.local.Mounts(rec.Name)
	if marked {
		if err := atomicfile.Write(v.path(rec.Name, fillingFile), nil, 0o600); err != nil {
			return err
		}
	}
	_, err = content.Copy(ctx, src, to)
	if ferr := failpoint.Hit("volume/filling"); err == nil {
		err = ferr
	}
	if err == nil && marked {
		err = to.SyncFS()
	}
	if err != nil && alone {
		if cerr := content.Clear(to); cerr != nil {
			v.log.Error("half-filled volume cannot be cleared", "volume", rec.Name, "error", cerr)
			return err
		}
	}
	if marked {
		if rerr := atomicfile.Remove(v.path(rec.Name, fillingFile)); err == nil {
			err = rerr
		}
	}
	return err
}

// unfill empties a volume that was being filled when the engine died.
func (v *Volumes) unfill(name string) error {
	mark := v.path(name, fillingFile)
	if _, err := os.Lstat(mark); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	data, err := tree.OpenDir(v.path(name, local.Data))
	if err != nil {
		return err
	}
	defer data.Close()
	if err := content.Clear(data); err != nil {
		return err
	}
	return atomicfile.Remove(mark)
}

// Size adds up the bytes of a volume's files; -1 for one whose content is elsewhere, as in Docker.
func (v *Volumes) Size(ctx context.Context, name string) (int64, error) {
	rec, ok := v.record(name)
	if !ok {
		return 0, fault.In(noSuchVolume(), "get %s", name)
	}
	if rec.Driver != localDriver || v.local.Mounts(name) {
		return -1, nil
	}
	dir, err := tree.OpenDir(v.path(name, local.Data))
	if err != nil {
		return 0, fault.In(err, "size of volume %s", name)
	}
	defer dir.Close()
	n, err := content.Size(ctx, dir)
	return n, fault.In(err, "size of volume %s", name)
}

// inside does f with a volume's content, mounted for the time if need be, in the volume's turn: who wants to mount it waits until f is
// done. It is for work that writes.
func (v *Volumes) inside(ctx context.Context, name string, f func(*Volume, *tree.Dir) error) error {
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	rec, d, err := v.mountable(ctx, name)
	if err != nil {
		return err
	}
	user := copyUser()
	at, err := d.Mount(ctx, name, user)
	if err != nil {
		return err
	}
	err = v.opened(ctx, at, func(root *tree.Dir) error { return f(rec, root) })
	if uerr := d.Unmount(context.WithoutCancel(ctx), name, user); err == nil {
		err = uerr
	}
	return err
}

// reading does f with a volume's content as its user: others may mount it meanwhile, nobody can remove it.
func (v *Volumes) reading(ctx context.Context, name string, f func(*tree.Dir) error) error {
	user := copyUser()
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return err
	}
	at, err := v.begin(ctx, name, user)
	release()
	if err != nil {
		return err
	}
	err = v.opened(ctx, at, f)
	after := context.WithoutCancel(ctx)
	if release, uerr := v.turns.Take(after, name); uerr == nil {
		if uerr := v.unmount(after, name, user); err == nil {
			err = uerr
		}
		release()
	}
	return err
}

func (v *Volumes) begin(ctx context.Context, name, user string) (string, error) {
	_, d, err := v.mountable(ctx, name)
	if err != nil {
		return "", err
	}
	at, err := d.Mount(ctx, name, user)
	if err == nil {
		v.use(name, user)
	}
	return at, err
}

// copyUser names a use of ours.
func copyUser() string { return "berth-copy-" + id.New()[:12] }

// opened does f with the directory at a path.
func (v *Volumes) opened(ctx context.Context, at string, f func(*tree.Dir) error) error {
	root, err := await(ctx, v.mountTimeout(), "open "+at, func() (*tree.Dir, error) {
		root, err := tree.OpenDir(at)
		if err != nil {
			return nil, err
		}
		if _, err := root.Stat(""); err != nil { // a dead server may be noticed only now
			root.Close()
			return nil, err
		}
		return root, nil
	}, func(late *tree.Dir) { late.Close() })
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}
