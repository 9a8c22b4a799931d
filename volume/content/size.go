package content

import (
	"context"

	"berth/kernel/tree"
)

// Size adds up the bytes of all files below root, holes included and each file once: what Docker calls the size of a volume.
func Size(ctx context.Context, root *tree.Dir) (int64, error) {
	s := sizer{ctx: ctx, seen: map[inode]bool{}}
	err := s.add(root, 0)
	return s.bytes, err
}

type sizer struct {
	ctx   context.Context
	seen  map[inode]bool // files with several names
	bytes int64
}

func (s *sizer) add(dir *tree.Dir, depth int) error {
	if depth > maxDepth {
		return nil // directories have no size; files down there are left out
	}
	if err := s.ctx.Err(); err != nil {
		return err
	}
	names, err := dir.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		st, err := dir.Stat(n)
		if tree.Missing(err) {
			continue
		}
		if err != nil {
			return err
		}
		if !st.IsDir() {
			if id := (inode{st.Dev, st.Ino}); st.Nlink > 1 {
				if s.seen[id] {
					continue
				}
				s.seen[id] = true
			}
			s.bytes += st.Size
			continue
		}
		sub, err := dir.Sub(n)
		if tree.Missing(err) || tree.NotDir(err) {
			continue
		}
		if err != nil {
			return err
		}
		err = s.add(sub, depth+1)
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Empty reports whether nothing is in dir. The lost+found of a fresh file system is nothing.
func Empty(dir *tree.Dir) (bool, error) {
	names, err := dir.Names()
	if err != nil {
		return false, err
	}
	if len(names) == 1 && names[0] == "lost+found" {
		sub, err := dir.Sub(names[0])
		if err != nil {
			return false, nil
		}
		defer sub.Close()
		names, err = sub.Names()
		return len(names) == 0, err
	}
	return len(names) == 0, nil
}

// Clear removes all that is in dir, which stays.
func Clear(dir *tree.Dir) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := dir.RemoveAll(n); err != nil {
			return err
		}
	}
	return nil
}
