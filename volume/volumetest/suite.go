package volumetest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"berth/base/fault"
	"berth/volume"
)

// Subject is a driver under test.
type Subject struct {
	Driver  string                                                   // its name
	Options map[string]string                                        // for its volumes
	Open    func(t *testing.T, root, runRoot string) *volume.Volumes // an engine's volumes; called again for its next life
	// NoRename: its volumes keep their names.
	NoRename bool
}

// place is one engine's directories and volumes.
type place struct {
	*volume.Volumes
	t         *testing.T
	s         Subject
	root, run string
}

// ctx of all calls.
var ctx = context.Background()

// Run runs the suite.
func Run(t *testing.T, s Subject) {
	NeedMounts(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *place)
	}{
		{"life", testLife}, {"names", testNames}, {"users", testUsers}, {"subpath", testSubpath},
		{"in-use", testInUse}, {"next-engine", testNextEngine}, {"fill", testFill}, {"parallel", testParallel},
		{"export-import", testExportImport}, {"clone", testClone}, {"snapshot", testSnapshot}, {"rename", testRename},
	} {
		t.Run(c.name, func(t *testing.T) {
			base, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			p := &place{t: t, s: s, root: filepath.Join(base, "root"), run: filepath.Join(base, "run")}
			p.Volumes = s.Open(t, p.root, p.run)
			defer func() {
				p.Recovered(func(string) bool { return false })
				if left := Left(t, base); len(left) > 0 && !t.Failed() {
					t.Errorf("left mounted: %v", left)
				}
				p.Close()
			}()
			c.test(t, p)
		})
	}
}

// again is the engine's next life.
func (p *place) again() {
	p.t.Helper()
	p.Close()
	p.Volumes = p.s.Open(p.t, p.root, p.run)
}

func (p *place) create(name string) volume.Volume {
	p.t.Helper()
	v, err := p.Create(ctx, volume.CreateRequest{Name: name, Driver: p.s.Driver, Options: p.s.Options, Labels: map[string]string{"of": "suite"}})
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

func (p *place) mount(name, subpath, user string) string {
	p.t.Helper()
	at, err := p.Mount(ctx, name, subpath, user)
	if err != nil {
		p.t.Fatal(err)
	}
	return at
}

func (p *place) unmount(name, user string) {
	p.t.Helper()
	if err := p.Unmount(ctx, name, user); err != nil {
		p.t.Fatal(err)
	}
}

// write puts a file into a volume as a container would.
func (p *place) write(name, file, text string) {
	p.t.Helper()
	at := p.mount(name, "", "writer")
	must(p.t, os.MkdirAll(filepath.Dir(filepath.Join(at, file)), 0o755))
	must(p.t, os.WriteFile(filepath.Join(at, file), []byte(text), 0o640))
	p.unmount(name, "writer")
}

// read gives a file's text; "" when it is not there.
func (p *place) read(name, file string) string {
	p.t.Helper()
	at := p.mount(name, "", "reader")
	b, err := os.ReadFile(filepath.Join(at, file))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	p.unmount(name, "reader")
	return string(b)
}

func testLife(t *testing.T, p *place) {
	made := p.create("data")
	if made.Name != "data" || made.Driver != p.s.Driver || made.Created.IsZero() || made.Scope == "" {
		t.Errorf("created %+v", made)
	}
	again := p.create("data")
	if again.Created != made.Created {
		t.Errorf("a second create made another volume: %+v", again)
	}
	got, err := p.Get(ctx, "data")
	must(t, err)
	if got.Labels["of"] != "suite" {
		t.Errorf("labels %v", got.Labels)
	}
	list, warnings, err := p.List(ctx)
	must(t, err)
	if len(list) != 1 || list[0].Name != "data" || len(warnings) != 0 {
		t.Errorf("list %+v, warnings %q", list, warnings)
	}
	p.write("data", "dir/file", "hello")
	p.again()
	if got := p.read("data", "dir/file"); got != "hello" {
		t.Errorf("after a restart the file holds %q", got)
	}
	must(t, p.Remove(ctx, "data", false))
	want(t, second(p.Get(ctx, "data")), fault.NotFound, "get data: no such volume")
	want(t, p.Remove(ctx, "data", false), fault.NotFound, "get data: no such volume")
	must(t, p.Remove(ctx, "data", true))
	p.create("data")
	if got := p.read("data", "dir/file"); got != "" {
		t.Errorf("a new volume of an old name holds %q", got)
	}
	must(t, p.Remove(ctx, "data", false))
}

func testNames(t *testing.T, p *place) {
	for name, text := range map[string]string{
		"x":        "volume name is too short, names should be at least two alphanumeric characters",
		"a b":      `create a b: "a b" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
		"../x":     "includes invalid characters",
		".hidden":  "includes invalid characters",
		"a/b":      "includes invalid characters",
		"a\x00b":   "includes invalid characters",
		"/etc":     "includes invalid characters",
		"-option":  "includes invalid characters",
		"new\nrow": "includes invalid characters",
	} {
		_, err := p.Create(ctx, volume.CreateRequest{Name: name, Driver: p.s.Driver, Options: p.s.Options})
		want(t, err, fault.Invalid, text)
	}
	v, err := p.Create(ctx, volume.CreateRequest{Driver: p.s.Driver, Options: p.s.Options})
	must(t, err)
	if len(v.Name) != 64 || !v.Anonymous {
		t.Errorf("anonymous volume %+v", v)
	}
	if _, ok := v.Labels["com.docker.volume.anonymous"]; !ok {
		t.Errorf("labels %v", v.Labels)
	}
	must(t, p.Remove(ctx, v.Name, false))
	p.create("data")
	_, err = p.Create(ctx, volume.CreateRequest{Name: "data", Driver: "nobody"})
	want(t, err, fault.NotFound, `create data: error looking up volume plugin nobody: plugin "nobody" not found`)
	must(t, p.Remove(ctx, "data", false))
}

func testUsers(t *testing.T, p *place) {
	p.create("data")
	one := p.mount("data", "", "c1")
	if again := p.mount("data", "", "c1"); again != one {
		t.Errorf("mounted at %s, then at %s", one, again)
	}
	two := p.mount("data", "", "c2")
	must(t, os.WriteFile(filepath.Join(one, "f"), []byte("x"), 0o600))
	if _, err := os.Stat(filepath.Join(two, "f")); err != nil {
		t.Errorf("the second user does not see the file of the first: %v", err)
	}
	p.unmount("data", "c1")
	if _, err := os.Stat(filepath.Join(two, "f")); err != nil {
		t.Errorf("the second user lost the volume with the first: %v", err)
	}
	p.unmount("data", "c2")
	p.unmount("data", "c2")
	p.unmount("data", "never")
	if left := Left(t, p.root, p.run); len(left) > 0 {
		t.Errorf("left mounted: %v", left)
	}
	for _, user := range []string{"", "../x", "a/b", ".x"} {
		_, err := p.Mount(ctx, "data", "", user)
		want(t, err, fault.Invalid, "cannot be the user of a volume")
	}
	_, err := p.Mount(ctx, "nothing", "", "c1")
	want(t, err, fault.NotFound, "no such volume")
	must(t, p.Remove(ctx, "data", false))
}

func testSubpath(t *testing.T, p *place) {
	p.create("data")
	at := p.mount("data", "", "host")
	must(t, os.MkdirAll(filepath.Join(at, "a/b"), 0o755))
	must(t, os.WriteFile(filepath.Join(at, "a/b/f"), []byte("inside"), 0o600))
	must(t, os.WriteFile(filepath.Join(at, "file"), []byte("file"), 0o600))
	must(t, os.Symlink("a/b", filepath.Join(at, "link")))
	must(t, os.Symlink("/a/b", filepath.Join(at, "absolute")))
	must(t, os.Symlink("absolute", filepath.Join(at, "far")))
	must(t, os.Symlink("../../../../../../../../etc", filepath.Join(at, "out")))
	for _, c := range []struct{ subpath, file, text string }{
		{"a/b", "f", "inside"}, {"a/./b/", "f", "inside"}, {"link", "f", "inside"}, {"a/../a/b", "f", "inside"}, {"file", "", "file"},
	} {
		b, err := os.ReadFile(filepath.Join(p.mount("data", c.subpath, "c1"), c.file))
		if err != nil || string(b) != c.text {
			t.Errorf("subpath %q shows %q, %v", c.subpath, b, err)
		}
	}
	for _, bad := range []string{"..", "../x", "/abs", "a/../../x"} {
		_, err := p.Mount(ctx, "data", bad, "c1")
		want(t, err, fault.Invalid, "subpath must be a relative path within the volume")
	}
	_, err := p.Mount(ctx, "data", "nothing", "c1")
	want(t, err, fault.NotFound, "cannot access path")
	for _, bad := range []string{"out", "absolute", "far"} { // as in Docker, for which an absolute link is one of the host's
		_, err = p.Mount(ctx, "data", bad, "c1")
		want(t, err, fault.Invalid, "path concatenation escapes the base directory")
	}

	// Whoever writes into the volume cannot swap what is pinned, and a subpath that fails takes no other away.
	pinned := p.mount("data", "a/b", "c1")
	_, err = p.Mount(ctx, "data", "nothing", "c1")
	want(t, err, fault.NotFound, "cannot access path")
	must(t, os.Rename(filepath.Join(at, "a/b"), filepath.Join(at, "old")))
	must(t, os.Symlink("/etc", filepath.Join(at, "a/b")))
	if b, err := os.ReadFile(filepath.Join(pinned, "f")); err != nil || string(b) != "inside" {
		t.Errorf("the pinned subpath now shows %q, %v", b, err)
	}
	p.unmount("data", "c1")
	p.unmount("data", "host")
	if left := Left(t, p.root, p.run); len(left) > 0 {
		t.Errorf("left mounted: %v", left)
	}
	if left, _ := os.ReadDir(filepath.Join(p.run, "pins")); len(left) > 0 {
		t.Errorf("left in pins: %v", left)
	}
	must(t, p.Remove(ctx, "data", false))
}

func testInUse(t *testing.T, p *place) {
	p.create("data")
	p.mount("data", "", "c1")
	p.UsedBy(func(name string) []string {
		if name != "data" {
			return nil
		}
		return []string{"c2", "c1"}
	})
	for _, force := range []bool{false, true} {
		want(t, p.Remove(ctx, "data", force), fault.Conflict, "remove data: volume is in use - [c1, c2]")
	}
	p.unmount("data", "c1")
	want(t, p.Remove(ctx, "data", false), fault.Conflict, "remove data: volume is in use - [c1, c2]")
	p.UsedBy(nil)
	must(t, p.Remove(ctx, "data", false))
}

func testNextEngine(t *testing.T, p *place) {
	p.create("data")
	p.create("other")
	p.write("data", "sub/f", "x")
	at := p.mount("data", "", "lives")
	sub := p.mount("data", "sub", "lives")
	p.mount("data", "sub", "ended")
	p.mount("other", "", "ended")
	p.again()
	p.Recovered(func(id string) bool { return id == "lives" })
	for path, file := range map[string]string{at: "sub/f", sub: "f"} {
		if b, err := os.ReadFile(filepath.Join(path, file)); err != nil || string(b) != "x" {
			t.Errorf("the running container sees %q, %v", b, err)
		}
	}
	if again := p.mount("data", "", "lives"); again != at {
		t.Errorf("mounted at %s, before at %s", again, at)
	}
	if again := p.mount("data", "sub", "lives"); again != sub {
		t.Errorf("pinned at %s, before at %s", again, sub)
	}
	p.unmount("data", "lives")
	if left := Left(t, p.root, p.run); len(left) > 0 {
		t.Errorf("left mounted: %v", left)
	}
	must(t, p.Remove(ctx, "data", false))
	must(t, p.Remove(ctx, "other", false))
}

func testFill(t *testing.T, p *place) {
	p.create("data")
	image := t.TempDir()
	must(t, os.Chown(image, 11, 12))
	if dir, err := os.Open(image); err == nil { // an empty directory has an owner, too
		must(t, p.Fill(ctx, "data", "", dir))
		dir.Close()
		at := p.mount("data", "", "c1")
		if st := stat(t, at); st.Uid != 11 || st.Gid != 12 {
			t.Errorf("the volume has owner %d:%d", st.Uid, st.Gid)
		}
		p.unmount("data", "c1")
	}
	must(t, os.WriteFile(filepath.Join(image, "f"), []byte("of the image"), 0o640))
	must(t, os.Chown(filepath.Join(image, "f"), 7, 8))
	must(t, os.Chown(image, 9, 10))
	must(t, os.Chmod(image, 0o750))
	fill := func() {
		t.Helper()
		dir, err := os.Open(image)
		must(t, err)
		defer dir.Close()
		must(t, p.Fill(ctx, "data", "", dir))
	}
	fill()
	at := p.mount("data", "", "c1")
	if st := stat(t, filepath.Join(at, "f")); st.Uid != 7 || st.Gid != 8 || st.Mode&0o777 != 0o640 {
		t.Errorf("the file has owner %d:%d and mode %o", st.Uid, st.Gid, st.Mode)
	}
	if st := stat(t, at); st.Uid != 9 || st.Gid != 10 || st.Mode&0o777 != 0o750 {
		t.Errorf("the volume has owner %d:%d and mode %o", st.Uid, st.Gid, st.Mode)
	}
	must(t, os.WriteFile(filepath.Join(at, "f"), []byte("of the container"), 0o640))
	p.unmount("data", "c1")
	must(t, os.Chmod(image, 0o700))
	fill() // no longer empty
	if got := p.read("data", "f"); got != "of the container" {
		t.Errorf("a second fill wrote %q", got)
	}
	must(t, p.Remove(ctx, "data", false))
}

func testParallel(t *testing.T, p *place) {
	p.create("data")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			user := "c" + string(rune('a'+i))
			for range 5 {
				at, err := p.Mount(ctx, "data", "", user)
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(at, user), nil, 0o600); err != nil {
					t.Error(err)
				}
				if err := p.Unmount(ctx, "data", user); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 4 {
		all.Go(func() {
			if _, err := p.Create(ctx, volume.CreateRequest{Name: "same", Driver: p.s.Driver, Options: p.s.Options}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if left := Left(t, p.root, p.run); len(left) > 0 {
		t.Errorf("left mounted: %v", left)
	}
	must(t, p.Remove(ctx, "data", false))
	must(t, p.Remove(ctx, "same", false))
}

func testExportImport(t *testing.T, p *place) {
	p.create("data")
	p.write("data", "dir/f", "text")
	var archive bytes.Buffer
	must(t, p.Export(ctx, "data", &archive))
	whole := bytes.Clone(archive.Bytes())
	p.create("copy")
	must(t, p.Import(ctx, "copy", bytes.NewReader(whole)))
	if got := p.read("copy", "dir/f"); got != "text" {
		t.Errorf("imported %q", got)
	}
	want(t, p.Import(ctx, "copy", bytes.NewReader(whole)), fault.Conflict, "is not empty")
	p.create("broken")
	p.mount("broken", "", "c1")
	want(t, p.Import(ctx, "broken", bytes.NewReader(whole)), fault.Conflict, "volume is in use - [c1]")
	p.unmount("broken", "c1")
	damaged := bytes.Replace(whole, []byte("text"), []byte("test"), 1)
	for name, bad := range map[string][]byte{"cut short": whole[:len(whole)-2048], "changed": damaged, "no archive": []byte(strings.Repeat("x", 2048))} {
		if err := p.Import(ctx, "broken", bytes.NewReader(bad)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if got := p.read("broken", "dir/f"); got != "" {
			t.Errorf("%s: half an import was left", name)
		}
	}
	for _, name := range []string{"data", "copy", "broken"} {
		must(t, p.Remove(ctx, name, false))
	}
}

func testClone(t *testing.T, p *place) {
	p.create("data")
	p.write("data", "f", "before")
	must(t, p.Clone(ctx, "data", "clone"))
	p.write("data", "f", "after")
	if got := p.read("clone", "f"); got != "before" {
		t.Errorf("the clone holds %q", got)
	}
	want(t, p.Clone(ctx, "data", "clone"), fault.Conflict, "already")
	want(t, p.Clone(ctx, "nothing", "x2"), fault.NotFound, "no such volume")
	must(t, p.Remove(ctx, "data", false))
	if got := p.read("clone", "f"); got != "before" {
		t.Errorf("without its original the clone holds %q", got)
	}
	must(t, p.Remove(ctx, "clone", false))
}

func testSnapshot(t *testing.T, p *place) {
	p.create("data")
	p.write("data", "f", "before")
	must(t, p.Snapshot(ctx, "data", "snap"))
	p.write("data", "f", "after")
	p.again()
	v, err := p.Get(ctx, "snap")
	must(t, err)
	if v.SnapshotOf != "data" || v.Status["snapshotOf"] != "data" {
		t.Errorf("snapshot %+v", v)
	}
	must(t, p.Clone(ctx, "snap", "restored"))
	if got := p.read("restored", "f"); got != "before" {
		t.Errorf("restored %q", got)
	}
	if v, _ := p.Get(ctx, "restored"); v.SnapshotOf != "" {
		t.Errorf("restored %+v", v)
	}
	p.write("restored", "f", "written")
	if at, err := p.Mount(ctx, "snap", "", "c1"); err == nil {
		if err := os.WriteFile(filepath.Join(at, "f"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("a snapshot can be written to: %v", err)
		}
		p.unmount("snap", "c1")
	} else if !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	for _, name := range []string{"restored", "snap", "data"} {
		must(t, p.Remove(ctx, name, false))
	}
}

func testRename(t *testing.T, p *place) {
	p.create("data")
	p.create("other")
	p.write("data", "f", "text")
	if p.s.NoRename {
		want(t, p.Rename(ctx, "data", "moved"), fault.NotImplemented, "rename")
		must(t, p.Remove(ctx, "data", false))
		must(t, p.Remove(ctx, "other", false))
		return
	}
	p.mount("data", "", "c1")
	want(t, p.Rename(ctx, "data", "moved"), fault.Conflict, "volume is in use - [c1]")
	p.unmount("data", "c1")
	want(t, p.Rename(ctx, "data", "other"), fault.Conflict, "there is a volume other already")
	want(t, p.Rename(ctx, "data", "../x"), fault.Invalid, "includes invalid characters")
	want(t, p.Rename(ctx, "nothing", "x2"), fault.NotFound, "no such volume")
	must(t, p.Rename(ctx, "data", "moved"))
	p.again()
	if got := p.read("moved", "f"); got != "text" {
		t.Errorf("the renamed volume holds %q", got)
	}
	want(t, second(p.Get(ctx, "data")), fault.NotFound, "get data: no such volume")
	p.create("data")
	if got := p.read("data", "f"); got != "" {
		t.Errorf("a new volume of the old name holds %q", got)
	}
	for _, name := range []string{"data", "moved", "other"} {
		must(t, p.Remove(ctx, name, false))
	}
	list, _, err := p.List(ctx)
	must(t, err)
	if i := slices.IndexFunc(list, func(v volume.Volume) bool { return v.Driver == p.s.Driver }); i >= 0 {
		t.Errorf("left: %+v", list[i])
	}
}

func second[T any](_ T, err error) error { return err }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err error, kind fault.Kind, text string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
		t.Errorf("%v (%v); want %q (%v)", err, fault.KindOf(err), text, kind)
	}
}

func stat(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	st, err := os.Stat(path)
	must(t, err)
	return st.Sys().(*syscall.Stat_t)
}
