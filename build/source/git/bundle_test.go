package git

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/session"
)

// blobs are a registry's, by locator.
type blobs struct {
	list  map[string]string
	asked int
	attrs map[string]string // that the last one came with
}

func (b *blobs) Read(_ context.Context, op *pb.SourceOp, _ session.Group, use func(io.Reader) error) error {
	b.asked++
	b.attrs = op.Attrs
	text, ok := b.list[op.Identifier]
	if !ok {
		return fault.New(fault.NotFound, "no such blob")
	}
	_ = use(strings.NewReader("a connection that broke")) // and was tried again
	return use(strings.NewReader(text))
}

// put keeps a blob and gives its locator.
func (b *blobs) put(text string) string {
	l := "docker-image+blob://example.com/bundles@" + digest.FromString(text).String()
	b.list[l] = text
	return l
}

func TestBundles(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		t.Run(format, func(t *testing.T) {
			b := open(t)
			store := &blobs{list: map[string]string{}}
			b.s.cfg.Blobs = store
			b.repo("r", "--object-format="+format)
			first := b.commit("r", "a=1")
			b.git("r", "tag", "-a", "-m", "msg", "v1")
			second := b.commit("r", "a=2", "d/b=B")

			made := map[string]string{}
			for fragment, want := range map[string]string{"": second + " refs/heads/main", "#main": second + " refs/heads/main", "#refs/tags/v1": b.git("r", "rev-parse", "v1") + " refs/tags/v1", "#" + second: second + " refs/heads/main"} {
				p, err := b.pin("r", fragment, "git.checkoutbundle=true")
				need(t, err)
				text, err := b.read(p, "bundle")
				need(t, err)
				file := filepath.Join(t.TempDir(), "b")
				need(t, os.WriteFile(file, []byte(text), 0o600))
				out, err := exec.Command("git", "bundle", "list-heads", file).Output()
				if err != nil || strings.TrimSpace(string(out)) != want {
					t.Errorf("%q: %v: %s, want %s", fragment, err, out, want)
				}
				made[fragment] = store.put(text)
				if n := strings.Count(want, second); n > 0 {
					out, err := exec.Command("git", "clone", "-q", "--bare", file, file+".git").CombinedOutput()
					if err != nil {
						t.Errorf("%q: nobody can clone it: %v: %s", fragment, err, out)
					}
				}
			}
			_ = os.RemoveAll(b.s.cfg.Root) // another engine
			b.server.Close()               // and no remote
			shallow := filepath.Join(t.TempDir(), "shallow")
			b.git("r", "clone", "-q", "--bare", "--depth=1", "file://"+filepath.Join(b.root, "r"), shallow)
			b.git("r", "--git-dir", shallow, "bundle", "create", "-q", shallow+".bundle", "refs/heads/main")
			text, err := os.ReadFile(shallow + ".bundle")
			need(t, err)
			made["shallow"] = store.put(string(text))
			for _, tt := range []struct{ fragment, from, checksum, want string }{
				{"#main", "#main", second, "a 2\nd/b B"},
				{"", "", second, "a 2\nd/b B"},
				{"#main", "shallow", second, "a 2\nd/b B"},
				{"", "shallow", second, "a 2\nd/b B"},
				{"#main:d", "#main", second, "b B"},
				{"#" + second, "#main", second, "a 2\nd/b B"},
				{"#refs/tags/v1", "#refs/tags/v1", first, "a 1"},
			} {
				_ = os.RemoveAll(b.s.cfg.Root)
				p, err := b.pin("r", tt.fragment, "git.bundle="+made[tt.from], "git.checksum="+tt.checksum)
				need(t, err)
				got, err := b.files(p)
				if err != nil || got != tt.want {
					t.Errorf("%q: %v: %s, want %s", tt.fragment, err, got, tt.want)
				}
				if p.Material.Attrs["bundle"] != made[tt.from] {
					t.Errorf("provenance is told %v", p.Material.Attrs)
				}
			}
			for fragment, want := range map[string]string{"#main": "refs/heads/main", "#" + second: ""} {
				p, err := b.pin("r", fragment, "git.bundle="+made["#main"], "git.checksum="+second, "git.keepgitdir=true")
				need(t, err)
				s, err := p.Snapshot(t.Context())
				need(t, err)
				lowers, err := s.Lowers(t.Context())
				need(t, err)
				for args, want := range map[string]string{"for-each-ref --format=%(refname)": want, "rev-parse HEAD": second, "status --porcelain": ""} {
					out, err := exec.Command("git", append([]string{"-c", "safe.directory=*", "-C", lowers[0]}, strings.Fields(args)...)...).CombinedOutput()
					if got := strings.TrimSpace(string(out)); err != nil || got != want {
						t.Errorf("%q: %s: %v: %q, want %q", fragment, args, err, got, want)
					}
				}
				s.Release()
			}
			p, err := b.pin("r", "#"+first, "git.bundle="+made["#refs/tags/v1"], "git.checksum="+first)
			need(t, err)
			_, err = b.files(p)
			need(t, err)
			asked := store.asked
			if got, err := b.files(p); err != nil || got != "a 1" || store.asked != asked {
				t.Errorf("%v: %s; asked for a bundle whose commit is here", err, got)
			}

			_ = os.RemoveAll(b.s.cfg.Root)
			for name, locator := range map[string]string{
				"no bundle":       store.put("no bundle"),
				"another one":     made["#refs/tags/v1"],
				"one that is not": "docker-image+blob://x/y@" + string(digest.FromString("z")),
				"half of one":     store.put(store.list[made["#main"]][:200]),
				"a lie": func() string {
					l := "docker-image+blob://x/y@" + string(digest.FromString("z"))
					store.list[l] = store.list[made["#main"]]
					return l
				}(),
			} {
				for _, fragment := range []string{"", "#main"} {
					p, err := b.pin("r", fragment, "git.bundle="+locator, "git.checksum="+second)
					if err == nil {
						_, err = b.files(p)
					}
					if err == nil {
						t.Errorf("%s %s: it was taken", name, fragment)
					}
				}
			}
			if left, _ := filepath.Glob(filepath.Join(b.s.cfg.Root, "bundle-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestSweep: what an engine that was killed had under way goes with the next one; mirrors stay.
func TestSweep(t *testing.T) {
	b := open(t)
	root := b.s.cfg.Root
	for _, p := range []string{"bundle-1/repo", "boxes/box-1/usr", "mirror/repo"} {
		need(t, os.MkdirAll(filepath.Join(root, p), 0o700))
	}
	need(t, os.WriteFile(filepath.Join(root, "known-hosts-1"), nil, 0o600))
	again, err := Open(b.s.cfg)
	need(t, err)
	defer again.Close()
	var left []string
	for _, p := range []string{"bundle-1", "boxes/box-1", "known-hosts-1", "mirror"} {
		if _, err := os.Stat(filepath.Join(root, p)); err == nil {
			left = append(left, p)
		}
	}
	if strings.Join(left, " ") != "mirror" {
		t.Errorf("left: %q", left)
	}
}

func TestBundleAttributes(t *testing.T) {
	commit, good := strings.Repeat("a", 40), "oci-layout+blob://mine@"+string(digest.FromString("x"))
	for _, tt := range []struct {
		attrs map[string]string
		err   string
	}{
		{map[string]string{pb.AttrGitBundle: good, pb.AttrGitChecksum: commit}, ""},
		{map[string]string{pb.AttrGitBundle: good}, "git.bundle requires git.checksum to be set"},
		{map[string]string{pb.AttrGitBundle: good, pb.AttrGitChecksum: "abc"}, "full commit"},
		{map[string]string{pb.AttrGitBundle: "nothing", pb.AttrGitChecksum: commit}, "missing scheme"},
		{map[string]string{pb.AttrGitBundle: "https://x/y@" + string(digest.FromString("x")), pb.AttrGitChecksum: commit}, "is not supported; expected"},
		{map[string]string{pb.AttrGitBundle: "docker-image+blob://x/y:latest", pb.AttrGitChecksum: commit}, "invalid digest"},
		{map[string]string{pb.AttrGitBundle: "docker-image+blob://x/y@" + string(digest.SHA512.FromString("x")), pb.AttrGitChecksum: commit}, "not supported"},
		{map[string]string{pb.AttrGitCheckoutBundle: "true", pb.AttrKeepGitDir: "true"}, "incompatible with git.keepgitdir"},
	} {
		r, err := parse("git://x/r#main", tt.attrs)
		if tt.err == "" && err != nil || tt.err != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%v: %v, want %q", tt.attrs, err, tt.err)
		}
		if err == nil && r.bundle.attrs[pb.AttrOCILayoutStoreID] != "mine" {
			t.Errorf("%v", r.bundle.attrs)
		}
	}
	if _, err := parse("git://x/r#main:sub", map[string]string{pb.AttrGitCheckoutBundle: "true"}); err == nil {
		t.Error("a part of a bundle was taken")
	}
	op := &pb.SourceOp{Identifier: "git://x/r", Attrs: map[string]string{pb.AttrGitBundle: good, pb.AttrOCILayoutStoreID: "other", pb.AttrGitChecksum: commit}}
	inner, err := Bundle(op)
	if err != nil || inner.Identifier != good || inner.Attrs[pb.AttrOCILayoutStoreID] != "other" {
		t.Fatalf("%v %v", inner, err)
	}
	inner.Identifier = "docker-image+blob://z/y@" + string(digest.FromString("y"))
	delete(inner.Attrs, pb.AttrOCILayoutStoreID)
	if got := WithBundle(op, inner).Attrs; got[pb.AttrGitBundle] != inner.Identifier || got[pb.AttrOCILayoutStoreID] != "" || op.Attrs[pb.AttrGitBundle] != good {
		t.Errorf("%v", got)
	}
	if none, err := Bundle(&pb.SourceOp{Identifier: "https://x"}); none != nil || err != nil {
		t.Errorf("%v %v", none, err)
	}
}
