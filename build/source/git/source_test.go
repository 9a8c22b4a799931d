package git

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/build/session"
)

func TestRefs(t *testing.T) {
	b := open(t)
	b.repo("r")
	first := b.commit("r", "a=1", "sub/deep/b=B")
	b.git("r", "tag", "light")
	b.git("r", "tag", "-a", "-m", "msg", "heavy")
	heavy := b.git("r", "rev-parse", "heavy")
	b.git("r", "branch", "side/way")
	second := b.commit("r", "a=2")
	b.git("r", "tag", "-a", "-m", "msg", "main") // a tag that is called like a branch
	one, two := "a 1\nsub/deep/b B", "a 2\nsub/deep/b B"
	for _, tt := range []struct {
		fragment string
		attrs    []string
		pin      string
		want     string
		err      string
	}{
		{fragment: "", pin: second, want: two},
		{fragment: "#main", pin: second, want: two},
		{fragment: "#refs/heads/main", pin: second, want: two},
		{fragment: "#heads/main", pin: second, want: two},
		{fragment: "#light", pin: first, want: one},
		{fragment: "#refs/tags/light", pin: first, want: one},
		{fragment: "#heavy", pin: heavy, want: one},
		{fragment: "#side/way", pin: first, want: one},
		{fragment: "#" + first, pin: first, want: one},
		{fragment: "#" + heavy, pin: heavy, want: one},
		{fragment: "#light:sub", pin: first, want: "deep/b B"},
		{fragment: "#:sub/deep", pin: second, want: "b B"},
		{fragment: "#light", attrs: []string{"git.checksum=" + first[:8]}, pin: first, want: one},
		{fragment: "#heavy", attrs: []string{"git.checksum=" + first}, pin: heavy, want: one},
		{fragment: "#heavy", attrs: []string{"git.checksum=" + heavy}, pin: heavy, want: one},
		{fragment: "#whatever", attrs: []string{"git.checksum=" + first, "git.fetchbycommit=true"}, pin: first, want: one},
		{fragment: "#light", attrs: []string{"git.checksum=" + second}, err: "expected checksum to match " + second},
		{fragment: "#none", err: "repository does not contain ref none"},
		{fragment: "#" + strings.Repeat("0", 40), pin: strings.Repeat("0", 40), err: "failed to fetch remote"},
		{fragment: "#light:nowhere", pin: first, err: "invalid subdir"},
		{fragment: "#light:a", pin: first, err: "non-directory"},
	} {
		t.Run(strings.Join(append([]string{tt.fragment}, tt.attrs...), " "), func(t *testing.T) {
			p, err := b.pin("r", tt.fragment, tt.attrs...)
			var got string
			if err == nil {
				if tt.pin != "" && p.Pin != tt.pin {
					t.Errorf("pinned %s, want %s", p.Pin, tt.pin)
				}
				got, err = b.files(p)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			need(t, err)
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	b := open(t)
	b.repo("r")
	first := b.commit("r", "a=1", "d/b=B")
	b.git("r", "tag", "-a", "-m", "msg", "heavy")
	key := func(fragment string, attrs ...string) string {
		t.Helper()
		p, err := b.pin("r", fragment, attrs...)
		need(t, err)
		return p.Cache.String()
	}
	base := key("")
	for name, k := range map[string]string{"commit": key("#" + first), "tag": key("#heavy"), "branch": key("#main")} {
		if k != base {
			t.Errorf("the same files by %s have another key", name)
		}
	}
	seen := map[string]string{base: "base"}
	for name, k := range map[string]string{
		"subdir": key("#:d"), "keep": key("", "git.keepgitdir=true"), "keep tag": key("#heavy", "git.keepgitdir=true"),
		"no submodules": key("", "git.skipsubmodules=true"), "times": key("", "git.mtime=commit"),
	} {
		if twin, is := seen[k]; is {
			t.Errorf("%s has the key of %s", name, twin)
		}
		seen[k] = name
	}
}

// What a mirror has is not fetched again; what is new is, and nothing of the history.
func TestMirror(t *testing.T) {
	b := open(t)
	b.repo("r")
	for _, n := range []string{"1", "2", "3"} {
		b.commit("r", "a="+n)
	}
	p, err := b.pin("r", "")
	need(t, err)
	_, err = b.files(p)
	need(t, err)
	asked := b.asked
	again, err := b.pin("r", "#"+p.Pin)
	need(t, err)
	if got, err := b.files(again); err != nil || got != "a 3" || b.asked != asked {
		t.Errorf("%q, %v, %d requests for what is here", got, err, b.asked-asked)
	}
	usage, err := b.s.Usage(t.Context())
	need(t, err)
	if len(usage) != 1 || usage[0].Size == 0 || usage[0].InUse || !strings.Contains(usage[0].Description, b.server.URL+"/r") {
		t.Errorf("%+v", usage)
	}
	mirror := filepath.Join(b.s.cfg.Root, strings.TrimPrefix(usage[0].ID, "git-"))
	if out, err := exec.Command("git", "--git-dir", filepath.Join(mirror, "repo"), "rev-list", "--all", "--count").Output(); err != nil || strings.TrimSpace(string(out)) != "1" {
		t.Errorf("the mirror has %s commits, %v", out, err)
	}

	// A git that was killed leaves locks; a disk that is full leaves worse.
	need(t, os.WriteFile(filepath.Join(mirror, "repo", "shallow.lock"), nil, 0o600))
	need(t, os.WriteFile(filepath.Join(mirror, "repo", "packed-refs.lock"), nil, 0o600))
	b.s.swept = map[string]bool{}
	b.commit("r", "a=4")
	p, err = b.pin("r", "")
	need(t, err)
	if got, err := b.files(p); err != nil || got != "a 4" {
		t.Errorf("after locks: %q, %v", got, err)
	}
	packs, _ := filepath.Glob(filepath.Join(mirror, "repo", "objects", "*", "*"))
	for _, f := range packs {
		need(t, os.Chmod(f, 0o600))
		need(t, os.Truncate(f, 0))
	}
	b.commit("r", "a=5")
	p, err = b.pin("r", "")
	need(t, err)
	if got, err := b.files(p); err != nil || got != "a 5" {
		t.Errorf("after damage: %q, %v", got, err)
	}
	need(t, b.s.Remove(t.Context(), usage[0].ID))
	if usage, err = b.s.Usage(t.Context()); err != nil || len(usage) != 0 {
		t.Errorf("%+v, %v", usage, err)
	}
	if err := b.s.Remove(t.Context(), "git-../x"); err == nil {
		t.Error("a path was taken for a mirror")
	}
}

// The remote goes on between the question and the fetch.
func TestMovedMeanwhile(t *testing.T) {
	b := open(t)
	b.repo("r")
	b.commit("r", "a=1")
	p, err := b.pin("r", "#main")
	need(t, err)
	b.commit("r", "a=2")
	if got, err := b.files(p); err != nil || got != "a 1" {
		t.Errorf("%q, %v", got, err)
	}
}

// A tag is moved in between, at a server that gives nothing but what its refs lead to. The commit that it stood for is still to be had.
func TestTagMovedMeanwhile(t *testing.T) {
	b := open(t)
	b.repo("r")
	b.commit("r", "a=1")
	b.git("r", "tag", "-a", "-m", "msg", "v1")
	b.commit("r", "b=2")
	b.git("r", "update-server-info")
	b.server.Config.Handler = http.FileServer(http.Dir(b.root))
	p, err := b.pin("r/.git", "#v1")
	need(t, err)
	b.git("r", "tag", "-f", "v1")
	b.git("r", "gc", "-q", "--prune=now")
	b.git("r", "update-server-info")
	if got, err := b.files(p); err != nil || got != "a 1" {
		t.Errorf("%q, %v", got, err)
	}
}

// A server that only has files gives all of the history, also of submodules; the advice about a detached HEAD is for who asked for it.
func TestDumbServer(t *testing.T) {
	b := open(t)
	b.repo("inner")
	b.commit("inner", "i=1")
	b.commit("inner", "i=2")
	b.repo("r")
	first := b.commit("r", "a=1")
	need(t, os.WriteFile(filepath.Join(b.root, "r", ".gitmodules"), []byte("[submodule \"m\"]\n\tpath = m\n\turl = ../../inner/.git\n"), 0o644))
	b.git("r", "update-index", "--add", "--cacheinfo", "160000,"+b.git("inner", "rev-parse", "HEAD")+",m")
	b.git("r", "add", ".gitmodules")
	b.git("r", "commit", "-q", "-m", "x")
	b.git("r", "tag", "v1")
	b.git("r", "update-server-info")
	b.git("inner", "update-server-info")
	b.server.Config.Handler = http.FileServer(http.Dir(b.root))
	for fragment, want := range map[string]string{"#v1": "m/i 2", "": "m/i 2", "#" + first: "a 1"} {
		p, err := b.pin("r/.git", fragment)
		need(t, err)
		if got, err := b.files(p); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %q, %v", fragment, got, err)
		}
	}
	for advice, want := range map[string]bool{"true": true, "false": false} {
		b.log.Reset()
		p, err := b.pin("r/.git", "#v1", "git.keepgitdir=true", "git.advice="+advice)
		need(t, err)
		_, err = b.files(p)
		need(t, err)
		if got := strings.Contains(b.log.String(), "detached HEAD"); got != want {
			t.Errorf("advice %s: %s", advice, b.log.String())
		}
	}
}

// What a build was told stays true for it; another build is told anew.
func TestToldOnce(t *testing.T) {
	b := open(t, secrets{})
	b.repo("r")
	first := b.commit("r", "a=1")
	p, err := b.pin("r", "")
	need(t, err)
	second := b.commit("r", "a=2")
	again, err := b.pin("r", "")
	need(t, err)
	host := strings.TrimPrefix(b.server.URL, "http://")
	op := &pb.SourceOp{Identifier: "git://" + host + "/r", Attrs: map[string]string{pb.AttrFullRemoteURL: b.server.URL + "/r"}}
	other, err := b.s.ResolveSourceMetadata(t.Context(), op, sourceresolver.Opt{}, session.NewGroup("s2"))
	need(t, err)
	if p.Pin != first || again.Pin != first || other.Git.Checksum != second {
		t.Errorf("%s, %s, %s", p.Pin, again.Pin, other.Git.Checksum)
	}
	if got, err := b.files(again); err != nil || got != "a 1" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestKeepGitDir(t *testing.T) {
	b := open(t)
	b.repo("r")
	b.commit("r", "a=1")
	b.git("r", "tag", "-a", "-m", "msg", "v1")
	commit := b.commit("r", "a=2")
	for fragment, want := range map[string]string{"#v1": "v1", "": "main", "#" + commit: ""} {
		p, err := b.pin("r", fragment, "git.keepgitdir=true")
		need(t, err)
		s, err := p.Snapshot(t.Context())
		need(t, err)
		lowers, err := s.Lowers(t.Context())
		need(t, err)
		git := func(args ...string) string {
			out, _ := exec.Command("git", append([]string{"-c", "safe.directory=*", "-C", lowers[0]}, args...)...).CombinedOutput()
			return strings.TrimSpace(string(out))
		}
		if got := git("status", "--porcelain"); got != "" {
			t.Errorf("%s: changed: %s", fragment, got)
		}
		if got := git("describe", "--tags", "--always", "--exact-match"); want == "v1" && got != want {
			t.Errorf("%s: %s", fragment, got)
		}
		if got := git("tag"); got != want {
			t.Errorf("%s: tags %q, want %q", fragment, got, want)
		}
		if got := git("remote", "get-url", "origin"); got != b.server.URL+"/r" {
			t.Errorf("%s: origin %s", fragment, got)
		}
		if _, err := os.Stat(filepath.Join(lowers[0], ".git", "hooks")); err == nil {
			t.Error("hooks were made")
		}
		s.Release()
	}
}

func TestCommitTimes(t *testing.T) {
	b := open(t)
	b.repo("r")
	b.commit("r", "d/a=1")
	p, err := b.pin("r", "", "git.mtime=commit")
	need(t, err)
	s, err := p.Snapshot(t.Context())
	need(t, err)
	defer s.Release()
	lowers, err := s.Lowers(t.Context())
	need(t, err)
	for _, f := range []string{"d", "d/a"} {
		fi, err := os.Stat(filepath.Join(lowers[0], f))
		need(t, err)
		if fi.ModTime().Unix() != 1000000000 {
			t.Errorf("%s: %v", f, fi.ModTime())
		}
	}
}

func TestSubmodules(t *testing.T) {
	b := open(t)
	b.repo("inner")
	b.commit("inner", "i=I")
	b.repo("r")
	need(t, os.WriteFile(filepath.Join(b.root, "r", ".gitmodules"), []byte("[submodule \"m\"]\n\tpath = m\n\turl = ../inner\n"), 0o644))
	b.git("r", "update-index", "--add", "--cacheinfo", "160000,"+b.git("inner", "rev-parse", "HEAD")+",m")
	b.git("r", "add", ".gitmodules")
	b.git("r", "commit", "-q", "-m", "x")
	modules := ".gitmodules [submodule \"m\"]\n\tpath = m\n\turl = ../inner\n"
	for _, tt := range []struct{ attr, want string }{
		{"", modules + "\nm/i I"},
		{"git.skipsubmodules=true", modules},
		{"git.keepgitdir=true", ".git\n" + modules + "\nm/.git\nm/i I"},
	} {
		p, err := b.pin("r", "", tt.attr)
		need(t, err)
		got, err := b.files(p)
		need(t, err)
		if got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.attr, got, tt.want)
		}
	}

	// A submodule on the host's disk is none of a repository's business.
	secret := t.TempDir()
	b.root, secret = secret, b.root
	b.repo(".")
	b.commit(".", "secret=S")
	head := b.git(".", "rev-parse", "HEAD")
	b.root, secret = secret, b.root
	for _, url := range []string{secret, "file://" + secret, "ext::sh -c id"} {
		b.repo("evil" + string(rune('a'+len(url)%26)))
		name := "evil" + string(rune('a'+len(url)%26))
		need(t, os.WriteFile(filepath.Join(b.root, name, ".gitmodules"), []byte("[submodule \"m\"]\n\tpath = m\n\turl = "+url+"\n"), 0o644))
		b.git(name, "update-index", "--add", "--cacheinfo", "160000,"+head+",m")
		b.git(name, "add", ".gitmodules")
		b.git(name, "commit", "-q", "-m", "x")
		p, err := b.pin(name, "")
		need(t, err)
		if got, err := b.files(p); err == nil {
			t.Errorf("a submodule at %s was checked out: %s", url, got)
		}
	}
}

func TestHostile(t *testing.T) {
	b := open(t)
	b.repo("r")
	b.commit("r", "real/f=F")
	need(t, os.Symlink("/etc", filepath.Join(b.root, "r", "out")))
	need(t, os.Symlink("real", filepath.Join(b.root, "r", "in")))
	// Attributes that would run a program if the host's configuration had one, and hooks that would run in a repository with them.
	b.commit("r", ".gitattributes=* filter=evil diff=evil")
	for _, sub := range []string{"out", "in", "real/../../.."} {
		p, err := b.pin("r", "#:"+sub)
		if err == nil {
			var got string
			if got, err = b.files(p); err == nil && strings.Contains(got, "passwd") {
				t.Errorf("subdir %s: %s", sub, got)
			}
		}
		if err == nil && sub != "real/../../.." { // which is the root
			t.Errorf("subdir %s was taken", sub)
		}
	}
	for _, id := range []string{
		"git://x/r#-oops", "git://x/r#a..b", "git://x/r#a b", "git://x/r#a^{}", "https://x/r", "git://",
	} {
		if r, err := parse(id, nil); err == nil {
			t.Errorf("%s was taken: %+v", id, r)
		}
	}
	for _, attrs := range []map[string]string{
		{pb.AttrFullRemoteURL: "https://other/r"}, {pb.AttrFullRemoteURL: "file:///etc"}, {pb.AttrFullRemoteURL: "ext::sh -c id"},
		{pb.AttrGitChecksum: "xyz"}, {pb.AttrGitMTime: "never"}, {pb.AttrGitFetchByCommit: "true"},
	} {
		if r, err := parse("git://x/r", attrs); err == nil {
			t.Errorf("%v was taken: %+v", attrs, r)
		}
	}
}

func TestSecrets(t *testing.T) {
	for _, tt := range []struct {
		name    string
		secrets secrets
		want    string
	}{
		{"token", secrets{"T": "geheim"}, "basic eC1hY2Nlc3MtdG9rZW46Z2VoZWlt"},
		{"header", secrets{"H": "Basic geheim"}, "Basic geheim"},
		{"host's token first", secrets{"T.HOST": "geheim", "T": "other"}, "basic eC1hY2Nlc3MtdG9rZW46Z2VoZWlt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own := secrets{}
			b := open(t, own)
			for k, v := range tt.secrets {
				own[strings.Replace(k, "HOST", strings.TrimPrefix(b.server.URL, "http://"), 1)] = v
			}
			b.repo("r")
			b.commit("r", "a=1")
			b.auth = tt.want
			attrs := []string{"git.authtokensecret=T", "git.authheadersecret=H", "git.keepgitdir=true"}
			p, err := b.pin("r", "", attrs...)
			need(t, err)
			config, err := b.read(p, ".git/config")
			need(t, err)
			searchTree(t, b.s.cfg.Root, "geheim", "Z2VoZWlt")
			if strings.Contains(config+b.log.String(), "geheim") || strings.Contains(config, "extraHeader") {
				t.Errorf("a secret was told: %s %s", config, b.log.String())
			}
			b.auth = "something else"
			if _, err := b.pin("r", "#main", attrs...); err == nil || strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), "Z2VoZWlt") {
				t.Errorf("%v", err)
			}
		})
	}
}

// A password in the remote's address reaches the server and nothing else.
func TestPassword(t *testing.T) {
	b := open(t)
	b.repo("r")
	b.commit("r", "a=1")
	b.auth = "Basic dTpnZWhlaW0=" // u:geheim
	full := strings.Replace(b.server.URL, "//", "//u:geheim@", 1) + "/r"
	p, err := b.pin("r", "", pb.AttrFullRemoteURL+"="+full, "git.keepgitdir=true")
	need(t, err)
	config, err := b.read(p, ".git/config")
	need(t, err)
	searchTree(t, b.s.cfg.Root, "geheim")
	if strings.Contains(config+b.log.String()+p.Material.URI, "geheim") {
		t.Errorf("the password was told: %s %s %s", config, b.log.String(), p.Material.URI)
	}
	b.auth = "nothing"
	if _, err := b.pin("r", "", pb.AttrFullRemoteURL+"="+full); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("%v", err)
	}
}

func searchTree(t *testing.T, root string, texts ...string) {
	t.Helper()
	need(t, filepath.Walk(root, func(p string, fi os.FileInfo, err error) error {
		if err != nil || !fi.Mode().IsRegular() {
			return err
		}
		c, err := os.ReadFile(p)
		for _, text := range texts {
			if strings.Contains(string(c), text) {
				t.Errorf("%s holds the secret", p)
			}
		}
		return err
	}))
}

func TestMetadata(t *testing.T) {
	b := open(t)
	b.repo("r")
	commit := b.commit("r", "a=1")
	b.git("r", "tag", "-a", "-m", "msg", "v1")
	tag := b.git("r", "rev-parse", "v1")
	host := strings.TrimPrefix(b.server.URL, "http://")
	op := &pb.SourceOp{Identifier: "git://" + host + "/r#v1", Attrs: map[string]string{pb.AttrFullRemoteURL: b.server.URL + "/r"}}
	r, err := b.s.ResolveSourceMetadata(t.Context(), op, sourceresolver.Opt{GitOpt: &sourceresolver.ResolveGitOpt{ReturnObject: true}}, session.NewGroup())
	need(t, err)
	if g := r.Git; g.Checksum != tag || g.CommitChecksum != commit || g.Ref != "refs/tags/v1" ||
		!strings.Contains(string(g.TagObject), "tag v1") || !strings.Contains(string(g.CommitObject), "committer c <c@x>") {
		t.Errorf("%+v", g)
	}
	op.Attrs[pb.AttrGitSignatureVerifyPubKey] = "no key"
	if _, err := b.s.ResolveSourceMetadata(t.Context(), op, sourceresolver.Opt{}, nil); !fault.Is(err, fault.Forbidden) {
		t.Errorf("an unsigned commit was taken: %v", err)
	}
}

// A build that is not wanted any more does not wait for a remote that does not answer, and leaves no git behind.
func TestCancelled(t *testing.T) {
	b := open(t)
	b.repo("r")
	b.commit("r", "a=1")
	asked := make(chan struct{}, 10)
	b.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done() // until git goes away
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	host := strings.TrimPrefix(b.server.URL, "http://")
	op := &pb.SourceOp{Identifier: "git://" + host + "/r", Attrs: map[string]string{pb.AttrFullRemoteURL: b.server.URL + "/r"}}
	if _, err := b.s.ResolveSourceMetadata(ctx, op, sourceresolver.Opt{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	unlock, err := b.s.lock(t.Context(), "x")
	need(t, err)
	if _, err := b.s.lock(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	unlock()
	if len(b.s.locks) != 0 {
		t.Errorf("locks were left: %v", b.s.locks)
	}
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"git://github.com/user/repo.git#main:../absolute/path": "git://github.com/user/repo.git#main:absolute/path",
		"git://github.com/user/../user/repo.git":               "git://github.com/user/repo.git",
		"git://github.com/user/repo.git#":                      "git://github.com/user/repo.git",
		"git://github.com/user/repo.git#:sub/./dir":            "git://github.com/user/repo.git#:sub/dir",
		"git://git@github.com:user/repo.git#v1":                "git://github.com/user/repo.git#v1",
		"https://x/../y":                                       "https://x/../y",
		"git://":                                               "git://",
	} {
		if got := Canonical(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func FuzzChoose(f *testing.F) {
	a, z := strings.Repeat("a", 40), strings.Repeat("0", 40)
	f.Add("ref: refs/heads/main\tHEAD\n"+a+"\tHEAD\n", "")
	f.Add(a+"\trefs/tags/v1\n"+z+"\trefs/tags/v1^{}\n", "v1")
	f.Add("x\ty\n", "y")
	f.Fuzz(func(t *testing.T, out, ref string) {
		v, err := choose(out, ref)
		if err != nil {
			return
		}
		if v.check() != nil || !strings.HasPrefix(v.ref, "refs/") {
			t.Errorf("%+v", v)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"git://github.com/a/b.git#v1:sub", "git://git@x:a/b", "git://x/../y#-z", "git://x/a?ref=b", "git://[::1]/a#refs/heads/x:../../y"} {
		f.Add(s, "https://github.com/a/b.git")
	}
	f.Fuzz(func(t *testing.T, id, full string) {
		r, err := parse(id, map[string]string{pb.AttrFullRemoteURL: full})
		if err != nil {
			return
		}
		if strings.HasPrefix(r.remote, "-") || strings.HasPrefix(r.ref, "-") || strings.HasPrefix(r.subdir, "/") || strings.HasPrefix(r.subdir, "../") ||
			strings.Contains(r.remote, "ext::") && !strings.Contains(r.remote, "://") {
			t.Errorf("%q, %q: %+v", id, full, r)
		}
		if c := Canonical(id); Canonical(c) != c {
			t.Errorf("%q: %q is not canonical", id, c)
		}
	})
}
