package oracle

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGit compares what both make of repositories, by every way in which a Dockerfile can name a part of one, and of some that lead nowhere.
func TestGit(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: builds mount overlay file systems")
	}
	if ociRuntime() == "" {
		t.Skip("needs runc or crun: BuildKit's steps run in it")
	}
	libexec, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("needs git")
	}
	root := t.TempDir()
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(libexec)), "git-http-backend"), InheritEnv: []string{"PATH"},
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=2",
			"GIT_CONFIG_KEY_0=uploadpack.allowAnySHA1InWant", "GIT_CONFIG_VALUE_0=true", "GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*"},
	}
	if _, err := os.Stat(backend.Path); err != nil {
		t.Skip("needs git-http-backend")
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := *backend
		h.Env = append(h.Env[:len(h.Env):len(h.Env)], "GIT_PROTOCOL="+r.Header.Get("Git-Protocol"))
		h.ServeHTTP(w, r)
	}))
	defer server.Close()
	sh := func(script string) string {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x", "GIT_COMMITTER_NAME=a",
			"GIT_COMMITTER_EMAIL=a@x", "GIT_AUTHOR_DATE=1000000000 +0000", "GIT_COMMITTER_DATE=1000000000 +0000", "GIT_ALLOW_PROTOCOL=file", "URL="+server.URL)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	sh(`git init -q -b main inner.git; cd inner.git; echo I > i; git add .; git commit -q -m i`)
	sh(`git init -q -b main r.git; cd r.git
echo 1 > a; mkdir -p d/e; echo E > d/e/f; chmod 755 d/e/f; ln -s d link; ln -s /etc out; git add .; git commit -q -m 1
git tag light; git tag -a -m v1 v1; git branch side
printf '[submodule "s"]\n\tpath = s\n\turl = ../inner.git\n' > .gitmodules; git add .gitmodules
git update-index --add --cacheinfo 160000,$(git -C ../inner.git rev-parse HEAD),s
echo 2 > a; git add a; git commit -q -m 2; git tag main-2`)
	sh(`git init -q -b main --object-format=sha256 long.git; cd long.git; echo L > l; git add .; git commit -q -m l`)
	first, second, tag := sh("git -C r.git rev-parse light"), sh("git -C r.git rev-parse main"), sh("git -C r.git rev-parse v1")
	long := sh("git -C long.git rev-parse main")
	b := newBases(t)
	buildkit, berth := startBuildKit(t), startBerth(t)
	fill := strings.NewReplacer("R?", server.URL+"/r.git?", "R#", server.URL+"/r.git#", "R ", server.URL+"/r.git ", "LONG", server.URL+"/long.git",
		"FIRST", first, "SECOND", second, "TAG", tag, "SHORT", first[:10], "LNAME", long)
	for _, add := range []string{
		"R /x", "R#main /x", "R#light /x", "R#v1 /x", "R#refs/tags/v1 /x", "R#side:d /x", "R#:d/e /x", "R#FIRST /x", "R#FIRST:d /x", "R#TAG /x",
		"R?branch=main /x", "R?tag=v1 /x", "R?ref=refs/heads/side /x", "R?ref=light /x", "R?ref=v1&subdir=d /x", "R?subdir=d/e /x", "R?commit=FIRST /x",
		"R?branch=side&commit=FIRST /x", "R?tag=v1&commit=FIRST /x", "R?tag=v1&checksum=FIRST /x", "R?tag=v1&checksum=TAG /x", "R?tag=v1&checksum=SHORT /x",
		"R?tag=v1&checksum=SECOND /x", "R?ref=main&commit=FIRST /x", "R?submodules=false /x", "R?submodules=true /x", "R?mtime=commit&submodules=false /x", "R?mtime=checkout /x",
		"R?branch=main&tag=v1 /x", "R?nonsense=1 /x", "R?ref=main&subdir=../.. /x", "R?subdir=link /x", "R?subdir=out /x", "R?subdir=a /x", "R?subdir=none /x",
		"R?ref=none /x", "R?ref=-x /x", "R?ref=--upload-pack=id /x", "R?commit=xyz /x", "R?commit=0000000000000000000000000000000000000000 /x", "R?fetch-by-commit=true&commit=FIRST /x",
		"R?fetch-by-commit=true&ref=renamed&commit=FIRST /x", "R?fetch-by-commit=true&ref=main /x", "--checksum=FIRST R#v1 /x", "--checksum=SECOND R#v1 /x", "--chown=7:8 R#v1 /x",
		"--link R#v1 /x", "--exclude=d R#v1 /x", "R?keep-git-dir=true&tag=v1 /x", "--keep-git-dir R#light /x", "--keep-git-dir=true R#FIRST /x", "--keep-git-dir R?submodules=false /x",
		"LONG /x", "LONG#LNAME /x", "--checksum=LNAME LONG#main /x", "--keep-git-dir LONG#main /x",
		"ext::sh%20-c%20id /x", "git@-oProxyCommand=id:x /x", "file:///etc/.git /x",
	} {
		t.Run(add, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "Dockerfile.git"), []byte("FROM bare\nADD "+fill.Replace(add)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			c := &testCase{archive: "git", name: "git", dir: dir, ownWords: true}
			want, got := c.both(t, buildkit, berth, b, dir)
			for _, o := range []*outcome{want, got} {
				// What is in a repository is git's matter and each packs it in its own way; what it points to is compared. BuildKit leaves a
				// submodule's file .git, which leads into its own mirror (docs/differences.md).
				keep := o.tree[:0]
				for _, l := range o.tree {
					if strings.HasPrefix(l, "/x/s/.git ") {
						continue
					}
					if !strings.Contains(l, "/.git/") || strings.Contains(l, "/.git/HEAD ") {
						keep = append(keep, l)
					}
				}
				o.tree = keep
			}
			if list := c.differences(want, got); len(list) > 0 {
				t.Errorf("- BuildKit, + Berth:\n%s", strings.Join(list, "\n"))
			}
			if want.err != nil && testing.Verbose() {
				t.Logf("BuildKit: %v", want.err)
				t.Logf("Berth:    %v", got.err)
			}
		})
	}
}
