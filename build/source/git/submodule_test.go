package git

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// link makes a submodule of a repository: what .gitmodules says of it, and its commit.
func (b *bed) link(repo, path, commit, gitmodules string) {
	b.t.Helper()
	f, err := os.OpenFile(filepath.Join(b.root, repo, ".gitmodules"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	need(b.t, err)
	_, err = f.WriteString(gitmodules)
	need(b.t, err)
	need(b.t, f.Close())
	b.git(repo, "add", ".gitmodules")
	b.git(repo, "update-index", "--add", "--cacheinfo", "160000,"+commit+","+path)
	b.git(repo, "commit", "-q", "-m", "a submodule")
}

// Submodules of submodules come, each from a mirror of its own: a new commit of what they belong to does not fetch them again.
func TestNestedSubmodules(t *testing.T) {
	b := open(t)
	b.repo("deep/inner")
	inner := b.commit("deep/inner", "i=I")
	b.repo("deep/middle")
	b.commit("deep/middle", "m=M")
	b.link("deep/middle", "sub/in", inner, "[submodule \"in ner\"]\n\tpath = sub/in\n\turl = ../inner\n")
	middle := b.git("deep/middle", "rev-parse", "HEAD")
	b.repo("r")
	b.commit("r", "a=1")
	b.link("r", "mid", middle, "[submodule \"x/mid\"]\n\tpath = mid\n\turl = "+b.server.URL+"/deep/middle\n\tbranch = none\n\tupdate = checkout\n")
	b.link("r", "left/out", inner, "[submodule \"out\"]\n\tpath = left/out\n\turl = ../deep/inner\n\tupdate = none\n")
	b.link("r", "again", inner, "[submodule \"again\"]\n\tpath = again\n\turl = ./../deep/inner/\n")
	skip := func(s string) string {
		var lines []string
		for line := range strings.SplitSeq(s, "\n") {
			if f := strings.Fields(line); len(f) == 2 && !strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, "[") || strings.HasSuffix(line, ".git") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "\n")
	}
	const want = "a 1\nagain/i I\nmid/m M\nmid/sub/in/i I"
	p, err := b.pin("r", "")
	need(t, err)
	got, err := b.files(p)
	need(t, err)
	if skip(got) != want {
		t.Errorf("got\n%s\nwant\n%s", skip(got), want)
	}

	need(t, os.WriteFile(filepath.Join(b.root, "r", "a"), []byte("2"), 0o644))
	b.git("r", "commit", "-q", "-m", "2", "--", "a")
	asked := b.asked
	p, err = b.pin("r", "")
	need(t, err)
	if got, err = b.files(p); err != nil || skip(got) != strings.Replace(want, "a 1", "a 2", 1) {
		t.Errorf("%v\n%s", err, skip(got))
	}
	if n := b.asked - asked; n > 5 { // two to ask what HEAD is, three to fetch
		t.Errorf("%d requests for one new commit", n)
	}

	p, err = b.pin("r", "", "git.keepgitdir=true")
	need(t, err)
	s, err := p.Snapshot(t.Context())
	need(t, err)
	defer s.Release()
	lowers, err := s.Lowers(t.Context())
	need(t, err)
	git := func(dir string, args ...string) string {
		out, _ := exec.Command("git", append([]string{"-c", "safe.directory=*", "-C", filepath.Join(lowers[0], dir)}, args...)...).CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	for _, dir := range []string{"", "mid", "mid/sub/in", "again"} {
		if got := git(dir, "status", "--porcelain"); got != "" {
			t.Errorf("%s: changed: %s", dir, got)
		}
	}
	status := git("", "submodule", "status", "--recursive")
	for _, want := range []string{" " + inner + " again", "-" + inner + " left/out", " " + middle + " mid", " " + inner + " mid/sub/in"} {
		if !strings.Contains(" "+status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	if got := git("mid", "remote", "get-url", "origin") + " " + git("mid/sub/in", "remote", "get-url", "origin") + " " + git("", "config", "submodule.x/mid.url"); got !=
		b.server.URL+"/deep/middle "+b.server.URL+"/deep/inner "+b.server.URL+"/deep/middle" {
		t.Errorf("remotes %s", got)
	}
}

// Repositories whose submodules were made to get git to write or run what it should not.
func TestHostileSubmodules(t *testing.T) {
	b := open(t)
	b.repo("inner")
	inner := b.commit("inner", "i=I", "hooks/post-checkout=#!/bin/sh\ntouch /tmp/berth-evil\n")
	outside := t.TempDir()
	for name, tt := range map[string]struct{ path, modules string }{
		// CVE-2018-11235: the name of a submodule is a path to its repository.
		"a name that leads up":          {"m", "[submodule \"../../hooks\"]\n\tpath = m\n\turl = ../inner\n"},
		"a name in the repository":      {"m", "[submodule \"a/.git/b\"]\n\tpath = m\n\turl = ../inner\n"},
		"an absolute path":              {"m", "[submodule \"m\"]\n\tpath = " + outside + "/m\n\turl = ../inner\n[submodule \"n\"]\n\tpath = m\n\turl = ../../../inner\n"},
		"a path that leads up":          {"m", "[submodule \"n\"]\n\tpath = ../m\n\turl = ../inner\n"},
		"a repository as path":          {"m", "[submodule \"n\"]\n\tpath = .GIT/m\n\turl = ../inner\n"},
		"one repository within another": {"m", "[submodule \"m\"]\n\tpath = m\n\turl = ../inner\n[submodule \"m/hooks\"]\n\tpath = n\n\turl = ../inner\n"},
		// CVE-2017-1000117, CVE-2018-17456: an address that is an option of ssh or git.
		"an option of ssh":         {"m", "[submodule \"m\"]\n\tpath = m\n\turl = ssh://-oProxyCommand=touch${IFS}/tmp/berth-evil/x\n"},
		"an option of git":         {"m", "[submodule \"m\"]\n\tpath = m\n\turl = -u./payload\n"},
		"an option as path":        {"m", "[submodule \"m\"]\n\tpath = --upload-pack=touch\n\turl = ../inner\n"},
		"another transport":        {"m", "[submodule \"m\"]\n\tpath = m\n\turl = ext::sh -c id\n"},
		"a file of the host's":     {"m", "[submodule \"m\"]\n\tpath = m\n\turl = file:///etc\n"},
		"a relative way to a file": {"m", "[submodule \"m\"]\n\tpath = m\n\turl = ../../../../../inner\n"},
		"a carriage return in it":  {"m", "[submodule \"m\"]\n\tpath = \"m\\r\"\n\turl = ../inner\n"}, // CVE-2025-48384
		"a backslash":              {"m", "[submodule \"m\"]\n\tpath = a\\\\..\\\\..\\\\m\n\turl = ../inner\n"},
		"a command":                {"m", "[submodule \"m\"]\n\tpath = m\n\turl = ../inner\n\tupdate = !touch /tmp/berth-evil\n"}, // CVE-2019-19604
		"no address":               {"m", "[submodule \"m\"]\n\tpath = m\n"},
		"no settings at all":       {"m", "[submodule \"m\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			repo := strings.ReplaceAll(name, " ", "-")
			b.repo(repo)
			b.link(repo, tt.path, inner, tt.modules)
			for _, attr := range []string{"git.keepgitdir=false", "git.keepgitdir=true"} {
				p, err := b.pin(repo, "", attr)
				need(t, err)
				if got, err := b.files(p); err == nil {
					t.Errorf("%s: it was checked out:\n%s", attr, got)
				}
			}
		})
	}
	if _, err := os.Stat("/tmp/berth-evil"); err == nil {
		t.Error("a program was run")
		_ = os.Remove("/tmp/berth-evil")
	}
	if list, _ := os.ReadDir(outside); len(list) > 0 {
		t.Errorf("written outside: %v", list)
	}
}

// What .gitmodules includes is not read: not files of the host, and not as a mistake of the repository's either.
func TestModulesThatInclude(t *testing.T) {
	b := open(t)
	b.repo("inner")
	inner := b.commit("inner", "i=I")
	b.repo("r")
	b.link("r", "m", inner, "[include]\n\tpath = /etc/passwd\n\tpath = elsewhere\n[submodule \"m\"]\n\tpath = m\n\turl = ../inner\n")
	p, err := b.pin("r", "")
	need(t, err)
	if got, err := b.files(p); err != nil || !strings.Contains(got, "m/i I") {
		t.Errorf("%v\n%s", err, got)
	}
}

// A link in the work tree where a submodule is to lie leads nowhere (CVE-2024-32002 and its like: there is no file system here that would
// confuse their names, so the tree is made by hand).
func TestLinkInPlaceOfSubmodule(t *testing.T) {
	b := open(t)
	b.repo("inner")
	inner := b.commit("inner", "i=I")
	b.repo("r")
	need(t, os.WriteFile(filepath.Join(b.root, "r", ".gitmodules"), []byte("[submodule \"m\"]\n\tpath = a/m\n\turl = ../inner\n"), 0o644))
	b.git("r", "add", ".gitmodules")
	// A tree with a link "a" and a directory "a", which git's own commands do not make.
	blob := func(text string) string {
		f := filepath.Join(t.TempDir(), "x")
		need(t, os.WriteFile(f, []byte(text), 0o644))
		return b.git("r", "hash-object", "-w", f)
	}
	modules := b.git("r", "rev-parse", ":.gitmodules")
	mktree := func(lines ...string) string {
		f := filepath.Join(t.TempDir(), "tree")
		need(t, os.WriteFile(f, []byte(strings.Join(lines, "\n")+"\n"), 0o644))
		cmd := exec.Command("sh", "-c", "git mktree --missing < "+f)
		cmd.Dir = filepath.Join(b.root, "r")
		out, err := cmd.Output()
		need(t, err)
		return strings.TrimSpace(string(out))
	}
	sub := mktree("160000 commit " + inner + "\tm")
	top := mktree("100644 blob "+modules+"\t.gitmodules", "120000 blob "+blob("/tmp")+"\ta", "040000 tree "+sub+"\ta")
	commit := b.git("r", "commit-tree", "-m", "x", top)
	b.git("r", "update-ref", "refs/heads/main", commit)
	for _, attr := range []string{"git.keepgitdir=false", "git.keepgitdir=true"} {
		p, err := b.pin("r", "", attr)
		need(t, err)
		if got, err := b.files(p); err == nil && strings.Contains(got, "-> /tmp") && strings.Contains(got, "a/m/i") {
			t.Errorf("%s: both a link and what is behind it:\n%s", attr, got)
		}
		if _, err := os.Stat("/tmp/m/i"); err == nil {
			t.Errorf("%s: written behind the link", attr)
		}
	}
}

// The client's token goes where the repository that it named is, and not where that one's submodules are.
func TestSubmodulesGetNoTokens(t *testing.T) {
	own := secrets{"GIT_AUTH_TOKEN": "geheim"}
	b, other := open(t, own), open(t)
	b.auth = "basic eC1hY2Nlc3MtdG9rZW46Z2VoZWlt"
	b.repo("inner")
	b.commit("inner", "i=I")
	other.repo("foreign")
	foreign := other.commit("foreign", "f=F")
	b.repo("r")
	b.commit("r", "a=1")
	b.link("r", "f", foreign, "[submodule \"f\"]\n\tpath = f\n\turl = "+other.server.URL+"/foreign\n")
	p, err := b.pin("r", "", "git.authtokensecret=GIT_AUTH_TOKEN")
	need(t, err)
	if got, err := b.files(p); err != nil || !strings.Contains(got, "f/f F") {
		t.Errorf("%s %v", got, err)
	}
	if len(other.seen) == 0 || strings.Join(other.seen, "") != "" {
		t.Errorf("the other server was told %q", other.seen)
	}
}

func TestSubmoduleRemote(t *testing.T) {
	for _, tt := range []struct{ owner, url, want string }{
		{"https://x/a/b.git", "../c.git", "https://x/a/c.git"},
		{"https://u:p@x/a/b", "../../c", "https://u:p@x/c"},
		{"https://x/a/b/", "./c", "https://x/a/b/c"},
		{"https://x/a", "../../c", ""},
		{"git@x:a/b.git", "../c", "git@x:a/c"},
		{"git@x:b.git", "../c", "git@x:c"},
		{"https://x/a/b", "https://y/z", "https://y/z"},
		{"https://x/a/b", "git@y:z.git", "git@y:z.git"},
		{"https://x/a/b", "ssh://git@y:22/z", "ssh://git@y:22/z"},
		{"https://x/a/b", "/etc", ""},
		{"https://x/a/b", "../c/../../d", ""},
		{"https://x/a/b", "../", ""},
		{"https://x/a/b", "file:///etc", ""},
		{"https://x/a/b", "../c?x", ""},
		{"https://x/a/b", "fd::17", ""},
	} {
		got, err := submoduleRemote(tt.owner, tt.url)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s of %s: %q %v, want %q", tt.url, tt.owner, got, err, tt.want)
		}
	}
}

func FuzzModules(f *testing.F) {
	f.Add("submodule.a.path\nx\x00submodule.a.url\n../b\x00", "https://x/a", "../b")
	f.Add("submodule.a/../b.path\nx/../y\x00", "git@x:a", "./../c")
	f.Fuzz(func(t *testing.T, text, owner, address string) {
		list, err := parseModules(text)
		for _, s := range list {
			for _, p := range []string{s.name, s.path} {
				if err == nil && (!filepath.IsLocal(p) || strings.Contains(p, "..") && strings.Contains("/"+p+"/", "/../")) {
					t.Errorf("%q was taken", p)
				}
			}
		}
		got, err := submoduleRemote(owner, address)
		if err == nil && strings.HasPrefix(address, ".") && strings.HasPrefix(owner, "https://x/") && !strings.HasPrefix(got, "https://x/") {
			t.Errorf("%q of %q is %q", address, owner, got)
		}
	})
}
