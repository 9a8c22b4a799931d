package file

import (
	"io"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/sys/user"

	"berth/base/fault"
	"berth/kernel/tree"
)

// maxUsers is how much of a tree's passwd or group file is read, in bytes.
const maxUsers = 10 << 20

// owner says whom new files belong to; nil leaves a copy with the owner it had and gives everything else to root.
type owner struct{ uid, gid int }

// A lookup gives the tree that a name is looked up in.
type lookup func(input int64, read func(root *tree.Dir) error) error

// ownerOf turns an op's owner into ids. A name that the tree does not know is root's, as in BuildKit: a Dockerfile's own error for it
// is its frontend's to give.
func ownerOf(o *pb.ChownOpt, in lookup) (*owner, error) {
	if o == nil {
		return nil, nil
	}
	own := &owner{}
	switch u := o.GetUser().GetUser().(type) {
	case *pb.UserOpt_ByID:
		own.uid, own.gid = int(u.ByID), int(u.ByID)
	case *pb.UserOpt_ByName:
		err := in(u.ByName.GetInput(), func(root *tree.Dir) error {
			return readNames(root, "/etc/passwd", func(r io.Reader) error {
				found, err := user.ParsePasswdFilter(r, func(e user.User) bool { return e.Name == u.ByName.Name })
				if len(found) > 0 {
					own.uid, own.gid = found[0].Uid, found[0].Gid
				}
				return err
			})
		})
		if err != nil {
			return nil, err
		}
	}
	switch g := o.GetGroup().GetUser().(type) {
	case *pb.UserOpt_ByID:
		own.gid = int(g.ByID)
	case *pb.UserOpt_ByName:
		err := in(g.ByName.GetInput(), func(root *tree.Dir) error {
			return readNames(root, "/etc/group", func(r io.Reader) error {
				found, err := user.ParseGroupFilter(r, func(e user.Group) bool { return e.Name == g.ByName.Name })
				if len(found) > 0 {
					own.gid = found[0].Gid
				}
				return err
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return own, nil
}

// readNames gives parse the file at p in root; a file that is not there knows nobody.
func readNames(root *tree.Dir, p string, parse func(io.Reader) error) error {
	f, err := root.OpenFile(p)
	if tree.Missing(err) || tree.NotDir(err) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "look up a name in %s", p)
	}
	defer f.Close()
	r := &io.LimitedReader{R: f, N: maxUsers + 1}
	if err := parse(r); err != nil {
		return fault.Wrap(fault.Invalid, err, "look up a name in %s", p)
	}
	if r.N == 0 {
		return fault.New(fault.Invalid, "look up a name in %s: it is larger than %d bytes", p, maxUsers)
	}
	return nil
}
