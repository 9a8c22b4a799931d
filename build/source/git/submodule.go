package git

import (
	"context"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/util/gitutil"

	"berth/base/fault"
	"berth/build/graph"
)

// Submodules are checked out from mirrors of their own, by the same steps as what they belong to: git's own command would fetch each anew
// for every commit of its owner, follow the links of a work tree, and take orders from a .gitmodules file that anybody may have written.

// module is where a repository stands in the one that the build names, which is the zero value.
type module struct {
	path  string // from the top of the work tree, with slashes
	names string // those of the submodules on the way, each a directory "modules" of its owner's .git
	depth int
}

// listed is a submodule as its owner lists it.
type listed struct {
	name   string // what .gitmodules calls it
	path   string // from the owner's top
	url    string
	commit string
}

// Bounds of what one repository may have.
const (
	submoduleDepth = 16
	submodulesMax  = 2000
)

// list gives the submodules of a commit: what .gitmodules tells of and the commit has a version of. One that says "update = none" stays empty.
func (c *checkingOut) list(ctx context.Context, p *program, m *mirror) ([]listed, error) {
	q := p.quiet()
	file := m.commit + ":.gitmodules"
	if _, err := q.run(ctx, "cat-file", "-e", file); err != nil {
		return nil, ctx.Err()
	}
	// Not what it includes: git's own reader of this file does not either, and it would be read from the host.
	text, err := q.run(ctx, "config", "--no-includes", "--blob", file, "--null", "--list")
	if err != nil {
		return nil, fault.In(err, "read .gitmodules")
	}
	list, err := parseModules(text)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if c.subs += len(list); c.subs > submodulesMax {
		return nil, fault.New(fault.Invalid, "there are more than %d submodules", submodulesMax)
	}
	args := []string{"ls-tree", "-z", "--full-tree", m.commit, "--"}
	for _, s := range list {
		args = append(args, s.path)
	}
	if text, err = q.run(ctx, args...); err != nil {
		return nil, err
	}
	commits := map[string]string{}
	for line := range strings.SplitSeq(text, "\x00") {
		what, at, _ := strings.Cut(line, "\t")
		if f := strings.Fields(what); len(f) == 3 && f[1] == "commit" && gitutil.IsCommitSHA(f[2]) {
			commits[at] = f[2]
		}
	}
	var there []listed
	for _, s := range list {
		if s.commit = commits[s.path]; s.commit == "" {
			continue
		}
		if s.url == "" {
			return nil, fault.New(fault.Invalid, "No url found for submodule path %q in .gitmodules", s.path)
		}
		there = append(there, s)
	}
	return there, nil
}

// parseModules reads .gitmodules as "git config --null --list" prints it: a key, a newline and a value, and a zero byte after each.
func parseModules(text string) (list []listed, err error) {
	at := map[string]int{}
	skip := map[string]bool{}
	for entry := range strings.SplitSeq(text, "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		rest, ok := strings.CutPrefix(key, "submodule.")
		dot := strings.LastIndexByte(rest, '.')
		if !ok || dot < 0 {
			continue
		}
		name, what := rest[:dot], rest[dot+1:]
		i, known := at[name]
		if !known {
			i = len(list)
			at[name] = i
			list = append(list, listed{name: name})
		}
		switch what {
		case "path":
			list[i].path = strings.TrimSuffix(value, "/")
		case "url":
			list[i].url = value
		case "update":
			if strings.HasPrefix(value, "!") {
				return nil, fault.New(fault.Invalid, "the submodule %q wants to be updated by a command", name)
			}
			skip[name] = value == "none"
		}
	}
	var good []listed
	paths := map[string]bool{}
	for _, s := range list {
		if s.path == "" || skip[s.name] {
			continue
		}
		if err := s.check(); err != nil {
			return nil, err
		}
		if paths[s.path] {
			return nil, fault.New(fault.Invalid, "two submodules have the path %q", s.path)
		}
		paths[s.path] = true
		good = append(good, s)
	}
	for _, s := range good { // the repository of one would lie within that of the other
		for _, o := range good {
			if strings.HasPrefix(o.name+"/", s.name+"/") && o.name != s.name || strings.HasPrefix(o.path, s.path+"/") {
				return nil, fault.New(fault.Invalid, "the submodule %q lies within %q", o.name, s.name)
			}
		}
	}
	return good, nil
}

// check refuses names and paths that would lead out of where they belong.
func (s *listed) check() error {
	for _, p := range []string{s.name, s.path} {
		if p == "" || len(p) > 4096 || path.IsAbs(p) || strings.HasPrefix(p, "-") || strings.ContainsAny(p, "\x00\n\r\\") {
			return fault.New(fault.Invalid, "invalid submodule %q at %q", s.name, s.path)
		}
		for part := range strings.SplitSeq(p, "/") {
			if part == "" || part == "." || part == ".." || strings.EqualFold(part, ".git") {
				return fault.New(fault.Invalid, "invalid submodule %q at %q", s.name, s.path)
			}
		}
	}
	return nil
}

// submodule checks out a submodule of what is at owner.
func (c *checkingOut) submodule(ctx context.Context, of *repository, owner module, s listed) error {
	if owner.depth >= submoduleDepth {
		return fault.New(fault.Invalid, "submodules are nested deeper than %d", submoduleDepth)
	}
	remote, err := submoduleRemote(of.remote, s.url)
	if err != nil {
		return err
	}
	top := of
	if of.of != nil {
		top = of.of
	}
	r := &repository{
		remote: remote, ref: s.commit, of: top, keepDir: of.keepDir, advice: of.advice, sshID: of.sshID, knownHosts: of.knownHosts,
	}
	at := module{path: path.Join(owner.path, s.path), names: path.Join(owner.names, "modules", s.name), depth: owner.depth + 1}
	if c.keep {
		if err := c.enlist(ctx, owner, s, r); err != nil {
			return err
		}
	}
	_, err = c.repository(ctx, r, &version{ref: s.commit, object: s.commit}, at)
	return fault.In(err, "failed to update submodules for %s: %s", of.plainRemote(), s.path)
}

// submoduleRemote gives the address of a submodule. One that begins with ./ or ../ starts at its owner's, and stays at its server.
func submoduleRemote(owner, address string) (string, error) {
	if !strings.HasPrefix(address, "./") && !strings.HasPrefix(address, "../") {
		u, err := gitutil.ParseURL(address) // https, http, ssh, git, user@host:path
		if err != nil || u.Host == "" || strings.HasPrefix(address, "-") || strings.HasPrefix(u.Host, "-") || strings.ContainsAny(address, "\n\r\x00") {
			return "", fault.New(fault.Invalid, "the address of a submodule is none: %q", graph.Redact(address))
		}
		return u.Remote, nil
	}
	base, at := "", owner // what stays, and the path
	if u, err := url.Parse(owner); err == nil && u.Scheme != "" && u.Host != "" {
		at = u.EscapedPath()
		base = strings.TrimSuffix(owner, at)
	} else if i := strings.IndexByte(owner, ':'); i >= 0 {
		base, at = owner[:i+1], owner[i+1:]
	}
	at = strings.TrimSuffix(at, "/")
	rest := address
	for {
		if r, ok := strings.CutPrefix(rest, "./"); ok {
			rest = r
			continue
		}
		r, ok := strings.CutPrefix(rest, "../")
		if !ok {
			break
		}
		rest = r
		if at == "" || at == "/" {
			return "", fault.New(fault.Invalid, "the address of a submodule leads out of its server: %q", address)
		}
		at = at[:max(strings.LastIndexByte(at, '/'), 0)]
	}
	if strings.Contains("/"+rest+"/", "/../") || rest == "" || strings.ContainsAny(rest, "\n\r\x00?#") {
		return "", fault.New(fault.Invalid, "the address of a submodule is none: %q", address)
	}
	if at != "" || !strings.HasSuffix(base, "/") && !strings.HasSuffix(base, ":") {
		at += "/"
	}
	return base + at + strings.TrimSuffix(rest, "/"), nil
}

// gitDir gives the path of a repository that is kept.
func (c *checkingOut) gitDir(at module) (string, error) {
	top, err := pathOf(c.work)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(top, ".git", filepath.FromSlash(at.names))
	return dir, os.MkdirAll(filepath.Dir(dir), 0o755)
}

// enlist writes into the owner's configuration that a submodule is wanted, as "git submodule init" does.
func (c *checkingOut) enlist(ctx context.Context, owner module, s listed, r *repository) error {
	p, err := c.s.git(ctx)
	if err != nil {
		return err
	}
	dir, err := c.gitDir(owner)
	if err != nil {
		return err
	}
	p.gitDir, p.dir, p.writable = dir, c.path, []string{c.path}
	for _, kv := range [][2]string{{"active", "true"}, {"url", r.plainRemote()}} {
		if _, err := p.run(ctx, "config", "submodule."+s.name+"."+kv[0], kv[1]); err != nil {
			return err
		}
	}
	return nil
}

// link joins a submodule's work tree with its repository.
func (c *checkingOut) link(ctx context.Context, p *program, work, gitDir string) error {
	there, err := filepath.Rel(work, gitDir)
	if err != nil {
		return err
	}
	back, err := filepath.Rel(gitDir, work)
	if err != nil {
		return err
	}
	if _, err := p.run(ctx, "config", "core.worktree", back); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(work, ".git"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString("gitdir: " + there + "\n")
	if err2 := f.Close(); err == nil {
		err = err2
	}
	return err
}
