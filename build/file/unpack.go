package file

import (
	stdtar "archive/tar"
	"context"
	"errors"
	"io"

	"berth/base/fault"
	"berth/image/archive"
	"berth/image/archive/compress"
	"berth/kernel/tree"
)

// probeLimit is how much of a file is decompressed, in bytes, to see whether it begins as a tar archive does: a header, and the
// longest name and attributes that may stand before it.
const probeLimit = 4 << 20

// unpack unpacks what is at s into the directory dest if it is an archive, as ADD does; was is false if it is none.
//
// What an archive holds goes by its own owners and modes, unless own is given, and its own times. Inside the archive links lead where they
// would if dest were the root, as Docker has it.
func unpack(ctx context.Context, src *tree.Dir, s string, dst *tree.Dir, dest string, own *owner, t when) (was bool, err error) {
	from, err := resolve(src, s, true)
	if err != nil {
		return false, err
	}
	st, found, err := src.Lookup(from)
	if err != nil || !found || st.Type() != tree.TypeRegular {
		return false, err
	}
	f, err := src.OpenFile(from)
	if err != nil {
		return false, at(err, from)
	}
	defer f.Close()
	if !isArchive(f) {
		return false, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}

	to, err := resolve(dst, dest, true)
	if err != nil {
		return false, err
	}
	if _, err := mkdirAll(dst, to, dirMode, own, t); err != nil {
		return false, err
	}
	dir, _, err := dst.Open(to)
	if err != nil {
		return false, at(err, dest)
	}
	defer dir.Close()
	stream, err := compress.NewStream(f, "")
	if err != nil {
		return false, fault.In(err, "unpack %s", s)
	}
	defer stream.Close()
	o := archive.ApplyOptions{KeepRoot: true}
	if stream.Kind() != compress.None {
		o.Input = stream.Input
	}
	if own != nil {
		uid, gid := uint32(own.uid), uint32(own.gid)
		o.Owner = func(uint32, uint32) (uint32, uint32) { return uid, gid }
	}
	done, err := archive.Apply(ctx, dir, stream, o)
	if err != nil {
		return false, fault.In(err, "unpack %s", s)
	}
	if own != nil {
		err = giveToRoot(dir, done.Implied)
	}
	return true, err
}

// giveToRoot gives directories to root: those that an archive only implies do not go to the owner of what is in it, in Docker.
func giveToRoot(dir *tree.Dir, paths []string) error {
	for _, p := range paths {
		parent, base := parentOf(p)
		d, _, err := dir.Open(parent)
		if err != nil {
			return at(err, p)
		}
		err = d.Chown(base, 0, 0)
		d.Close()
		if err != nil {
			return at(err, p)
		}
	}
	return nil
}

// isArchive reports whether r, decompressed, begins with a tar entry. An archive without any entry is none.
func isArchive(r io.Reader) bool {
	plain, _, err := compress.NewReader(r)
	if err != nil {
		return false
	}
	defer plain.Close()
	_, err = stdtar.NewReader(io.LimitReader(plain, probeLimit)).Next()
	return err == nil || errors.Is(err, stdtar.ErrInsecurePath)
}
