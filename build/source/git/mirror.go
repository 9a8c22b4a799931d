package git

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/buildkit/util/gitutil"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/session"
)

// Names in a mirror. What was fetched is kept under the name of its object, so that no two refs get in each other's way.
const (
	keptRefs    = "refs/berth/at/"
	fetchedRef  = "refs/berth/fetched"
	everything  = "refs/berth/all/"
	mirrorPacks = 50 // packs after which a mirror is begun anew: it has cost as many fetches to get there
)

// mirror is a locked mirror that has a version.
type mirror struct {
	dir    string // of the mirror
	repo   string // the bare repository in it
	commit string // that the version's files are of
	unlock func()
}

// mirrored brings a version into the remote's mirror and locks that.
func (s *Source) mirrored(ctx context.Context, r *repository, v *version, g session.Group, log io.Writer) (m *mirror, err error) {
	dir := filepath.Join(s.cfg.Root, digest.FromString(r.remote).Encoded())
	unlock, err := s.lock(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	p, done, err := s.connect(ctx, r, g, log)
	if err != nil {
		return nil, err
	}
	defer done()
	m = &mirror{dir: dir, repo: filepath.Join(dir, "repo"), unlock: unlock}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return nil, err
	}
	p.gitDir, p.dir, p.writable = m.repo, m.dir, []string{m.dir}
	err = s.update(ctx, p, m, r, v, g)
	if broken(err) {
		s.log.Info("build: a git mirror is begun anew", "remote", r.plainRemote(), "err", err)
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(m.dir, 0o700); err != nil {
			return nil, err
		}
		err = s.update(ctx, p, m, r, v, g)
	}
	if ctx.Err() != nil { // git was killed
		s.mu.Lock()
		delete(s.swept, dir)
		s.mu.Unlock()
	}
	return m, err
}

// mirrorGit is a program that reads a mirror, and can do nothing else.
func (s *Source) mirrorGit(ctx context.Context, m *mirror) (*program, error) {
	p, err := s.git(ctx)
	if err != nil {
		return nil, err
	}
	p.dir, p.gitDir, p.readable = m.repo, m.repo, []string{m.repo}
	return p, nil
}

// update makes sure that the mirror is there and has the version.
func (s *Source) update(ctx context.Context, p *program, m *mirror, r *repository, v *version, g session.Group) error {
	if err := s.prepare(ctx, p, m, r, v); err != nil {
		return err
	}
	kept := keptRefs + v.object
	commit, err := p.quiet().run(ctx, "rev-parse", "--verify", "--quiet", kept+"^{commit}")
	if err == nil {
		m.commit = strings.TrimSpace(commit)
		return touch(m.dir)
	}
	if ctx.Err() != nil {
		return err
	}
	if r.bundle != nil {
		err = s.fetchBundle(ctx, p, r, v, g)
	} else {
		err = fault.Wrap(fault.Unavailable, fetch(ctx, p, r, v), "failed to fetch remote %s", r.plainRemote())
	}
	if err != nil {
		return err
	}
	object := v.object
	if v.commit != "" && !r.keepDir && r.signature == nil {
		if _, err := p.quiet().run(ctx, "cat-file", "-e", object); err != nil {
			object = v.commit // the tag itself is gone, and only its files are wanted
		}
	}
	if _, err := p.run(ctx, "update-ref", "--no-deref", kept, object); err != nil {
		return err
	}
	commit, err = p.run(ctx, "rev-parse", "--verify", kept+"^{commit}")
	if err != nil {
		return err
	}
	m.commit = strings.TrimSpace(commit)
	if r.checksum != "" && !strings.HasPrefix(v.object, r.checksum) && !strings.HasPrefix(m.commit, r.checksum) {
		return fault.New(fault.Invalid, "expected checksum to match %s, got %s", r.checksum, m.commit)
	}
	return touch(m.dir)
}

// prepare makes an empty mirror where there is none, and unlocks one that a git that was killed has left locked.
func (s *Source) prepare(ctx context.Context, p *program, m *mirror, r *repository, v *version) error {
	if list, err := filepath.Glob(filepath.Join(m.repo, "objects", "pack", "*.pack")); err == nil && len(list) > mirrorPacks {
		if err := os.RemoveAll(m.dir); err != nil {
			return err
		}
		if err := os.MkdirAll(m.dir, 0o700); err != nil {
			return err
		}
	}
	if _, err := os.Stat(m.repo); err == nil {
		s.mu.Lock()
		swept := s.swept[m.dir]
		s.swept[m.dir] = true
		s.mu.Unlock()
		if swept {
			return nil
		}
		return sweep(m)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh := filepath.Join(m.dir, "new-"+rand.Text())
	defer os.RemoveAll(fresh)
	q := *p
	q.gitDir, q.remote, q.config = "", "", nil
	if _, err := q.quiet().run(ctx, initArgs(v, "--bare", "--", fresh)...); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.dir, "remote"), []byte(r.plainRemote()+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, m.repo)
}

// initArgs makes a repository without the host's template, in the remote's object format.
func initArgs(v *version, args ...string) []string {
	init := []string{"init", "--quiet", "--template="}
	if len(v.object) == 64 {
		init = append(init, "--object-format=sha256")
	}
	return append(init, args...)
}

// sweep removes what a git that was killed has left: lock files, half packs, and our own temporary files.
func sweep(m *mirror) error {
	for _, pattern := range []string{"new-*", "index-*", "git-*"} {
		list, _ := filepath.Glob(filepath.Join(m.dir, pattern))
		for _, p := range list {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	return filepath.WalkDir(m.repo, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		half := strings.HasPrefix(d.Name(), "tmp_") && strings.Contains(p, "/objects/")
		if !d.IsDir() && (half || strings.HasSuffix(d.Name(), ".lock")) {
			return os.Remove(p)
		}
		return nil
	})
}

// fetch gets the version, as little as the server allows: the ref alone; the object alone; all refs.
func fetch(ctx context.Context, p *program, r *repository, v *version) error {
	named := !gitutil.IsCommitSHA(v.ref) && !r.byCommit
	if named {
		if err := shallow(ctx, p, v.ref); err != nil && !said(err, "couldn't find remote ref") {
			return err
		}
		// The remote may have gone on since it was asked.
		if got, err := p.quiet().run(ctx, "rev-parse", "--verify", "--quiet", fetchedRef); err == nil && strings.TrimSpace(got) == v.object {
			return nil
		}
	}
	err := shallow(ctx, p, v.object)
	if r.byCommit || !refusesObjects(err) {
		return err
	}
	args := []string{"fetch", "--no-tags", "--force"}
	if _, err := os.Stat(filepath.Join(p.gitDir, "shallow")); err == nil {
		args = append(args, "--unshallow")
	}
	args = append(args, "--", "origin", "+refs/heads/*:"+everything+"heads/*", "+refs/tags/*:"+everything+"tags/*")
	if _, err := p.run(ctx, args...); err != nil {
		return err
	}
	for _, object := range []string{v.object, v.commit} {
		if object == "" {
			continue
		}
		if _, err := p.quiet().run(ctx, "cat-file", "-e", object+"^{commit}"); err == nil {
			return nil
		}
	}
	return fault.New(fault.NotFound, "fetched ref %s does not match expected commit %s and commit can not be found in the repository", v.ref, v.object)
}

// refusesObjects reports that a server gives what its refs lead to and nothing by the name of an object.
func refusesObjects(err error) bool {
	return said(err, "not our ref", "unadvertised object", "couldn't find remote ref", "Server does not allow request", "Cannot obtain needed object")
}

// shallow fetches one ref or object without its history, or with it from a server that cannot without.
func shallow(ctx context.Context, p *program, what string) error {
	args := []string{"fetch", "--no-tags", "--force", "--no-write-fetch-head", "--depth=1", "--", "origin", "+" + what + ":" + fetchedRef}
	_, err := p.run(ctx, args...)
	if noShallow(err) {
		args = append(args[:4], args[5:]...)
		_, err = p.run(ctx, args...)
	}
	return err
}

// noShallow reports that a server gives repositories with their history only.
func noShallow(err error) bool {
	return said(err, "--depth", "shallow capabilities", "does not support shallow")
}

// broken reports errors that are the mirror's fault.
func broken(err error) bool {
	return said(err, "corrupt", "bad object", "unable to read", "is empty", "did not send all necessary objects", "unable to update local ref",
		"cannot lock ref", "shallow file has changed", "not a git repository", "missing blob", "missing tree", "Could not read")
}

// touch notes that a mirror was used.
func touch(dir string) error {
	now := time.Now()
	return os.Chtimes(dir, now, now)
}
