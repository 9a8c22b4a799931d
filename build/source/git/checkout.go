package git

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/buildkit/util/gitutil"

	"berth/base/fault"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/kernel/tree"
)

// checkout gives the files of a version.
func (s *Source) checkout(ctx context.Context, r *repository, v *version, g session.Group, log io.Writer) (*snapshot.Snapshot, error) {
	scratch := s.cfg.Snapshots.Scratch()
	defer scratch.Release()
	draft, err := s.cfg.Snapshots.Draft(ctx, scratch)
	if err != nil {
		return nil, err
	}
	defer draft.Drop()
	err = draft.Do(ctx, func(root *tree.Dir) error {
		c := &checkingOut{s: s, g: g, log: log, root: root, keep: r.keepDir && r.subdir == ""}
		return c.all(ctx, r, v)
	})
	if err != nil {
		return nil, err
	}
	return draft.Seal(ctx)
}

// checkingOut is a checkout under way.
type checkingOut struct {
	s    *Source
	g    session.Group
	log  io.Writer
	root *tree.Dir // the draft
	path string    // of the draft
	work *tree.Dir // the work tree: the draft, or a directory in it
	keep bool      // repositories stay
	subs int       // submodules that were met
}

// workName is the directory that a repository is checked out into when only a part of it is wanted.
const workName = ".berth-checkout"

func (c *checkingOut) all(ctx context.Context, r *repository, v *version) (err error) {
	if c.path, err = pathOf(c.root); err != nil {
		return err
	}
	c.work = c.root
	if r.subdir != "" {
		if err := c.root.Mkdir(workName, 0o755); err != nil {
			return err
		}
		if c.work, err = c.root.Sub(workName); err != nil {
			return err
		}
		defer c.work.Close()
	}
	if r.asBundle {
		return c.writeBundle(ctx, r, v)
	}
	at, err := c.repository(ctx, r, v, module{})
	if err != nil {
		return err
	}
	if r.subdir != "" {
		if err := c.raise(r.subdir); err != nil {
			return err
		}
	}
	if r.commitTimes {
		return c.stamp(at)
	}
	return nil
}

// repository checks one repository out, and its submodules below it. It gives the time of its commit. A mirror is locked while it is read, and
// no other is then: a repository may name itself as a submodule.
func (c *checkingOut) repository(ctx context.Context, r *repository, v *version, at module) (when tree.Time, err error) {
	subs, when, err := c.one(ctx, r, v, at)
	if err != nil {
		return when, err
	}
	for _, sub := range subs {
		if err := c.submodule(ctx, r, at, sub); err != nil {
			return when, err
		}
	}
	return when, nil
}

// one checks one repository out and lists its submodules.
func (c *checkingOut) one(ctx context.Context, r *repository, v *version, at module) (subs []listed, when tree.Time, err error) {
	m, err := c.s.mirrored(ctx, r, v, c.g, c.log)
	if err != nil {
		return nil, when, err
	}
	defer m.unlock()
	p, err := c.s.mirrorGit(ctx, m)
	if err != nil {
		return nil, when, err
	}
	p.log = c.log
	work, err := c.place(at.path)
	if err != nil {
		return nil, when, err
	}
	if c.keep {
		err = c.clone(ctx, p, r, v, m, work, at)
	} else {
		err = c.files(ctx, p, m, work)
	}
	if err != nil {
		return nil, when, err
	}
	if r.commitTimes {
		if when, err = commitTime(ctx, p, m.commit); err != nil {
			return nil, when, err
		}
	}
	if !r.noSubmodules {
		subs, err = c.list(ctx, p, m)
	}
	return subs, when, err
}

// place gives the path of a directory of the work tree. There is no link on the way: git would follow it.
func (c *checkingOut) place(rel string) (string, error) {
	at, err := c.work.Sub(".")
	if err != nil {
		return "", err
	}
	defer func() { at.Close() }()
	if rel != "" {
		for name := range strings.SplitSeq(rel, "/") {
			sub, err := at.Sub(name)
			if err != nil {
				return "", fault.Wrap(fault.Invalid, err, "the submodule %q has no place of its own", rel)
			}
			at.Close()
			at = sub
		}
	}
	return pathOf(at)
}

// pathOf gives the path of a draft, which is a plain directory because it lies on nothing: git wants a path of the file system.
func pathOf(root *tree.Dir) (string, error) {
	p, err := os.Readlink(root.Path())
	if err != nil {
		return "", err
	}
	there, err := tree.OpenDir(p)
	if err != nil {
		return "", err
	}
	defer there.Close()
	a, err := root.Stat("")
	if err != nil {
		return "", err
	}
	b, err := there.Stat("")
	if err != nil {
		return "", err
	}
	if a.Dev != b.Dev || a.Ino != b.Ino || p == "/" {
		return "", fault.New(fault.Internal, "a draft for git has no path")
	}
	return p, nil
}

// files writes the files of the commit, with an index that is thrown away. The mirror cannot be written to meanwhile, and nothing else of the draft.
func (c *checkingOut) files(ctx context.Context, p *program, m *mirror, work string) error {
	scratch, err := os.MkdirTemp(m.dir, "index-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	q := *p
	q.tree, q.dir, q.index = work, work, filepath.Join(scratch, "index")
	q.writable = []string{scratch, work}
	_, err = q.run(ctx, "read-tree", "--reset", "-u", m.commit)
	return err
}

// clone makes a repository in the work tree, or for a submodule in that of what it belongs to, and checks out there.
func (c *checkingOut) clone(ctx context.Context, mirror *program, r *repository, v *version, m *mirror, work string, at module) error {
	p := *mirror
	gitDir, err := c.gitDir(at)
	if err != nil {
		return err
	}
	p.gitDir, p.tree, p.dir, p.writable = gitDir, work, work, []string{c.path}
	if _, err := p.quiet().run(ctx, initArgs(v)...); err != nil {
		return err
	}
	local := p
	local.remote = "file://" + m.repo // not the path: git then takes no short cuts through the file system
	from := keptRefs + v.object
	if to := localRef(r, v); to != "" {
		from = "+" + from + ":" + to
	}
	if _, err := local.run(ctx, "fetch", "--quiet", "--update-head-ok", "--no-tags", "--depth=1", "--", "origin", from); err != nil {
		return err
	}
	p.config = advice(r)
	if _, err := p.run(ctx, "checkout", "--no-progress", "FETCH_HEAD"); err != nil {
		return err
	}
	if _, err := p.run(ctx, "remote", "add", "--", "origin", r.plainRemote()); err != nil {
		return err
	}
	if at.path != "" {
		if err := c.link(ctx, &p, work, gitDir); err != nil {
			return err
		}
	}
	if _, err := p.run(ctx, "reflog", "expire", "--all", "--expire=now"); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(gitDir, "FETCH_HEAD")); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// localRef is what the version is called in a repository that is kept: as BuildKit has it, a tag of the name that the build uses, unless that is
// a full one.
func localRef(r *repository, v *version) string {
	name := r.ref
	if name == "" {
		name = strings.TrimPrefix(v.ref, "refs/heads/")
	}
	switch {
	case gitutil.IsCommitSHA(name):
		return ""
	case r.bundle != nil && strings.HasPrefix(v.ref, "refs/"):
		return v.ref // of a bundle's it keeps the kind
	case strings.HasPrefix(name, "refs/"):
		return name
	}
	return "refs/tags/" + name
}

// raise moves what is in the wanted directory of the work tree to the root of the draft, and drops the rest.
func (c *checkingOut) raise(subdir string) error {
	at, err := c.root.Sub(workName)
	if err != nil {
		return err
	}
	defer func() { at.Close() }()
	done := ""
	for name := range strings.SplitSeq(subdir, "/") {
		done = filepath.Join(done, name)
		sub, err := at.Sub(name)
		if tree.NotDir(err) || tree.Impossible(err) { // a link is no directory
			return fault.New(fault.Invalid, "invalid subdir %s: git subpath %q contains non-directory %q", subdir, subdir, done)
		}
		if err != nil {
			return fault.Wrap(fault.NotFound, err, "invalid subdir %s: failed to lstat %q", subdir, done)
		}
		at.Close()
		at = sub
	}
	names, err := at.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n == workName { // a file of that very name
			return fault.New(fault.Invalid, "subdir %s holds a file called %s", subdir, workName)
		}
		if err := at.Rename(n, c.root, n); err != nil {
			return err
		}
	}
	return c.root.RemoveAll(workName)
}

// commitTime is when a commit was made.
func commitTime(ctx context.Context, p *program, commit string) (tree.Time, error) {
	out, err := p.quiet().run(ctx, "log", "-1", "--format=%ct", commit)
	if err != nil {
		return tree.Time{}, err
	}
	sec, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	return tree.Time{Sec: sec}, fault.Wrap(fault.Invalid, err, "the commit's time")
}

// stamp gives all files a time.
func (c *checkingOut) stamp(t tree.Time) error {
	err := eachBelow(c.root, func(in *tree.Dir, e tree.Entry) error { return in.Chtimes(e.Name, t, t) })
	if err != nil {
		return err
	}
	return c.root.Chtimes("", t, t)
}

// eachBelow calls f for everything below d, what is in a directory before the directory.
func eachBelow(d *tree.Dir, f func(in *tree.Dir, e tree.Entry) error) error {
	entries, err := d.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type == tree.TypeDir {
			sub, err := d.Sub(e.Name)
			if err != nil {
				return err
			}
			err = eachBelow(sub, f)
			sub.Close()
			if err != nil {
				return err
			}
		}
		if err := f(d, e); err != nil {
			return err
		}
	}
	return nil
}
