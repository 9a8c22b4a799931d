package git

import (
	"context"
	"crypto/rand"
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
	m, err := s.mirrored(ctx, r, v, g, log)
	if err != nil {
		return nil, err
	}
	defer m.unlock()
	scratch := s.cfg.Snapshots.Scratch()
	defer scratch.Release()
	draft, err := s.cfg.Snapshots.Draft(ctx, scratch)
	if err != nil {
		return nil, err
	}
	defer draft.Drop()
	err = draft.Do(ctx, func(root *tree.Dir) error {
		c := &checkingOut{s: s, r: r, v: v, m: m, g: g, log: log, root: root}
		return c.all(ctx)
	})
	if err != nil {
		return nil, err
	}
	return draft.Seal(ctx)
}

// checkingOut is a checkout under way.
type checkingOut struct {
	s    *Source
	r    *repository
	v    *version
	m    *mirror
	g    session.Group
	log  io.Writer
	root *tree.Dir // the draft
	path string    // of the draft
	work string    // path of the work tree: the draft, or a directory in it
}

// workName is the directory that a repository is checked out into when only a part of it is wanted.
const workName = ".berth-checkout"

func (c *checkingOut) all(ctx context.Context) (err error) {
	if c.path, err = pathOf(c.root); err != nil {
		return err
	}
	c.work = c.path
	if c.r.subdir != "" {
		c.work = filepath.Join(c.path, workName)
		if err := c.root.Mkdir(workName, 0o755); err != nil {
			return err
		}
	}
	keep := c.r.keepDir && c.r.subdir == ""
	submodules := !c.r.noSubmodules && c.hasSubmodules(ctx)
	if keep || submodules {
		err = c.clone(ctx, keep, submodules)
	} else {
		err = c.files(ctx)
	}
	if err != nil {
		return err
	}
	if c.r.subdir != "" {
		if err := c.raise(); err != nil {
			return err
		}
	}
	if c.r.commitTimes {
		return c.stamp(ctx)
	}
	return nil
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

// mirrorGit is a program on the mirror.
func (c *checkingOut) mirrorGit() *program {
	return &program{path: c.s.gitPath(), dir: c.s.cfg.Root, gitDir: c.m.repo, log: c.log, local: true}
}

// files writes the files of the commit, with an index that is thrown away.
func (c *checkingOut) files(ctx context.Context) error {
	p := c.mirrorGit()
	p.tree, p.dir = c.work, c.work
	p.index = filepath.Join(c.m.dir, "index-"+rand.Text())
	defer os.Remove(p.index)
	_, err := p.run(ctx, "read-tree", "--reset", "-u", c.m.commit)
	return err
}

func (c *checkingOut) hasSubmodules(ctx context.Context) bool {
	_, err := c.mirrorGit().quiet().run(ctx, "cat-file", "-e", c.m.commit+":.gitmodules")
	return err == nil
}

// clone makes a repository of its own for the work tree, in it or beside it, and checks out there: for who wants to keep it, and for
// submodules, which write into the repository's configuration.
func (c *checkingOut) clone(ctx context.Context, keep, submodules bool) error {
	gitDir := filepath.Join(c.work, ".git")
	if !keep {
		gitDir = filepath.Join(c.m.dir, "git-"+rand.Text())
		defer os.RemoveAll(gitDir)
	}
	p := c.mirrorGit()
	p.gitDir, p.tree, p.dir = gitDir, c.work, c.work
	if _, err := p.quiet().run(ctx, initArgs(c.v)...); err != nil {
		return err
	}
	local := *p
	local.remote = "file://" + c.m.repo // not the path: git then takes no short cuts through the file system
	from := keptRefs + c.v.object
	if to := c.localRef(); to != "" {
		from = "+" + from + ":" + to
	}
	if _, err := local.run(ctx, "fetch", "--quiet", "--update-head-ok", "--no-tags", "--depth=1", "--", "origin", from); err != nil {
		return err
	}
	p.config = advice(c.r)
	if _, err := p.run(ctx, "checkout", "--no-progress", "FETCH_HEAD"); err != nil {
		return err
	}
	if _, err := p.run(ctx, "remote", "add", "--", "origin", c.r.plainRemote()); err != nil {
		return err
	}
	if submodules {
		if err := c.submodules(ctx, p); err != nil {
			return err
		}
	}
	if !keep {
		return removeGitFiles(c.work)
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
func (c *checkingOut) localRef() string {
	name := c.r.ref
	if name == "" {
		name = strings.TrimPrefix(c.v.ref, "refs/heads/")
	}
	switch {
	case gitutil.IsCommitSHA(name):
		return ""
	case strings.HasPrefix(name, "refs/"):
		return name
	}
	return "refs/tags/" + name
}

// submodules brings the submodules, with the client's secrets for the remotes that they may be sent to.
func (c *checkingOut) submodules(ctx context.Context, p *program) error {
	q, done, err := c.s.connect(ctx, c.r, c.g, c.log)
	if err != nil {
		return err
	}
	defer done()
	q.gitDir, q.tree, q.dir = p.gitDir, p.tree, p.dir
	q.remote = "" // the repository knows it, without the password
	args := []string{"submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"}
	_, err = q.run(ctx, args...)
	if noShallow(err) {
		_, err = q.run(ctx, args[:len(args)-1]...)
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "failed to update submodules for %s", c.r.plainRemote())
	}
	return nil
}

// removeGitFiles removes the files called .git by which submodules find their repositories. Git keeps nothing else under that name.
func removeGitFiles(root string) error {
	d, err := tree.OpenDir(root)
	if err != nil {
		return err
	}
	defer d.Close()
	return eachBelow(d, func(in *tree.Dir, e tree.Entry) error {
		if e.Name == ".git" {
			return in.RemoveAll(e.Name)
		}
		return nil
	})
}

// raise moves what is in the wanted directory of the work tree to the root of the draft, and drops the rest.
func (c *checkingOut) raise() error {
	at, err := c.root.Sub(workName)
	if err != nil {
		return err
	}
	defer func() { at.Close() }()
	done := ""
	for name := range strings.SplitSeq(c.r.subdir, "/") {
		done = filepath.Join(done, name)
		sub, err := at.Sub(name)
		if tree.NotDir(err) || tree.Impossible(err) { // a link is no directory
			return fault.New(fault.Invalid, "invalid subdir %s: git subpath %q contains non-directory %q", c.r.subdir, c.r.subdir, done)
		}
		if err != nil {
			return fault.Wrap(fault.NotFound, err, "invalid subdir %s: failed to lstat %q", c.r.subdir, done)
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
			return fault.New(fault.Invalid, "subdir %s holds a file called %s", c.r.subdir, workName)
		}
		if err := at.Rename(n, c.root, n); err != nil {
			return err
		}
	}
	return c.root.RemoveAll(workName)
}

// stamp gives all files the time of the commit.
func (c *checkingOut) stamp(ctx context.Context) error {
	out, err := c.mirrorGit().quiet().run(ctx, "log", "-1", "--format=%ct", c.m.commit)
	if err != nil {
		return err
	}
	sec, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "the commit's time")
	}
	t := tree.Time{Sec: sec}
	err = eachBelow(c.root, func(in *tree.Dir, e tree.Entry) error { return in.Chtimes(e.Name, t, t) })
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
