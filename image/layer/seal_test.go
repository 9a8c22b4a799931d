package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/image/layer"
	"berth/image/layer/layertest"
	"berth/kernel/overlay"
	"berth/kernel/probe"
	"berth/kernel/tree"
)

// step seals what a script changes on top of a chain, in a draft that was made ready.
func step(t testing.TB, s *layer.Store, chain []digest.Digest, script string, ready ...func(*layer.Draft)) layer.Info {
	t.Helper()
	info, err := tryStep(t, s, chain, script, ready...)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func tryStep(t testing.TB, s *layer.Store, chain []digest.Digest, script string, ready ...func(*layer.Draft)) (layer.Info, error) {
	t.Helper()
	ctx := context.Background()
	st, err := s.Stack(chain)
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Draft(st.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Drop()
	for _, f := range ready {
		f(d)
	}
	lower := st.Lower
	var below *tree.Dir
	switch len(lower) {
	case 0:
		lower = []string{t.TempDir()}
	case 1:
		below, err = tree.OpenDir(lower[0])
	default:
		below, err = s.Attach(layer.Mount{Lower: lower})
	}
	if err != nil {
		t.Fatal(err)
	}
	root, err := s.Attach(d.Mount(lower))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", "umask 022; "+script)
	cmd.Dir = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), root.FD())
	out, err := cmd.CombinedOutput()
	root.Close()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	info, err := s.Seal(ctx, d, below)
	if below != nil {
		below.Close()
	}
	return info, err
}

// listing gives a layer's archive as lines: type, mode, owner, name and what it leads to.
func listing(t testing.TB, s *layer.Store, d digest.Digest) []string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Tar(context.Background(), d, &b); err != nil {
		t.Fatal(err)
	}
	var list []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%c %o %d:%d %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if h.Size > 0 {
			line += fmt.Sprintf(" %d", h.Size)
		}
		list = append(list, line)
	}
}

const baseScript = `mkdir -p etc usr/bin var/d/sub tmp; chmod 1777 tmp; echo a >etc/a; echo b >etc/b; echo x >var/d/x; echo y >var/d/sub/y; ln -s a etc/l; touch -d @1000000000 etc/a etc/b etc/l etc`

func TestSeal(t *testing.T) {
	needRoot(t)
	for name, cfg := range map[string]layer.Config{"host": {}, "userxattr": {UserXattr: true}, "old kernel": {Facts: probe.Host().Without(probe.OverlayAppend)}} {
		t.Run(name, func(t *testing.T) {
			for name, c := range map[string]struct {
				script string
				want   []string
			}{
				"nothing":                {`true`, nil},
				"come and gone":          {`echo >etc/new; rm etc/new; mkdir tmp/d; rmdir tmp/d`, nil},
				"chown changes nothing":  {`chown -R 0:0 etc usr; chmod 1777 tmp`, nil},
				"added":                  {`echo hello >etc/new`, []string{"5 755 0:0 etc/", "0 644 0:0 etc/new 6"}},
				"changed":                {`echo hello >>etc/a`, []string{"5 755 0:0 etc/", "0 644 0:0 etc/a 8"}},
				"mode":                   {`chmod 600 etc/a`, []string{"5 755 0:0 etc/", "0 600 0:0 etc/a 2"}},
				"directory's mode":       {`chmod 700 var/d`, []string{"5 755 0:0 var/", "5 700 0:0 var/d/"}},
				"deleted":                {`rm etc/a; rm -r var/d`, []string{"5 755 0:0 etc/", "0 600 0:0 etc/.wh.a", "5 755 0:0 var/", "0 600 0:0 var/.wh.d"}},
				"new directory":          {`mkdir -p opt/a/b; echo 1 >opt/a/b/c`, []string{"5 755 0:0 opt/", "5 755 0:0 opt/a/", "5 755 0:0 opt/a/b/", "0 644 0:0 opt/a/b/c 2"}},
				"replaced directory":     {`rm -r var/d; mkdir var/d; echo z >var/d/z`, []string{"5 755 0:0 var/", "5 755 0:0 var/d/", "0 600 0:0 var/d/.wh.sub", "0 600 0:0 var/d/.wh.x", "0 644 0:0 var/d/z 2"}},
				"deeper replaced":        {`rm -r var/d; mkdir -p var/d/sub; echo z >var/d/sub/z`, []string{"5 755 0:0 var/", "5 755 0:0 var/d/", "5 755 0:0 var/d/sub/", "0 600 0:0 var/d/sub/.wh.y", "0 644 0:0 var/d/sub/z 2", "0 600 0:0 var/d/.wh.x"}},
				"directory became file":  {`rm -r var/d; echo f >var/d`, []string{"5 755 0:0 var/", "0 644 0:0 var/d 2"}},
				"file became directory":  {`rm etc/a; mkdir etc/a; echo q >etc/a/q`, []string{"5 755 0:0 etc/", "5 755 0:0 etc/a/", "0 644 0:0 etc/a/q 2"}},
				"links":                  {`echo 1 >etc/one; ln etc/one etc/two; ln -s /x etc/s; rm etc/l; ln -s b etc/l`, []string{"5 755 0:0 etc/", "2 777 0:0 etc/l -> b", "0 644 0:0 etc/one 2", "2 777 0:0 etc/s -> /x", "1 644 0:0 etc/two -> etc/one"}},
				"special":                {`mkfifo -m 644 etc/p; mknod -m 600 etc/c c 1 3; ln etc/p etc/q`, []string{"5 755 0:0 etc/", "3 600 0:0 etc/c", "6 644 0:0 etc/p", "1 644 0:0 etc/q -> etc/p"}},
				"owner":                  {`echo 1 >etc/o; chown 1000:2000 etc/o; chown -h 7:8 etc/l`, []string{"5 755 0:0 etc/", "2 777 7:8 etc/l -> a", "0 644 1000:2000 etc/o 2"}},
				"looks like a whiteout":  {`echo 1 >etc/.wh.a; echo 2 >etc/k`, []string{"5 755 0:0 etc/", "0 644 0:0 etc/k 2"}},
				"root":                   {`chmod 711 .`, []string{"5 711 0:0 ./"}},
				"sparse":                 {`truncate -s 1M etc/big; printf x | dd of=etc/big bs=1 seek=500000 conv=notrunc 2>/dev/null`, []string{"5 755 0:0 etc/", "0 644 0:0 etc/big 1048576"}},
				"same content, new time": {`touch etc/a`, []string{"5 755 0:0 etc/", "0 644 0:0 etc/a 2"}},
				"other content, same time": {`printf 'z\n' >etc/a; touch -d @1000000000 etc/a`,
					[]string{"5 755 0:0 etc/", "0 644 0:0 etc/a 2"}},
			} {
				t.Run(name, func(t *testing.T) {
					cfg.Root = t.TempDir()
					s := openStore(t, cfg)
					defer s.Close()
					base := step(t, s, nil, baseScript).DiffID
					got := step(t, s, []digest.Digest{base}, c.script)
					if list := listing(t, s, got.DiffID); !slices.Equal(list, c.want) {
						t.Errorf("got\n%s\nwant\n%s", strings.Join(list, "\n"), strings.Join(c.want, "\n"))
					}
					if (got.DiffID == layer.EmptyDiff) != (c.want == nil) {
						t.Errorf("diff id %s", got.DiffID)
					}
					for _, d := range []digest.Digest{base, got.DiffID} {
						if v, err := s.Verify(context.Background(), d); err != nil || !v.Rebuilt || v.Partly != nil {
							t.Errorf("verify: %+v %v", v, err)
						}
					}
				})
			}
		})
	}
}

// Of a directory that has changed in nothing else the time counts that somebody set, not the one that the kernel gave it; and only where
// the draft's owner wants so.
func TestSealKeepsTimes(t *testing.T) {
	needRoot(t)
	s := openStore(t, layer.Config{Root: t.TempDir()})
	defer s.Close()
	base := []digest.Digest{step(t, s, nil, "mkdir -p etc/sub var/d tmp; echo 1 >etc/a; touch -d @1500000000 etc/sub etc var/d var tmp").DiffID}
	const script = "touch -d @1234567890 etc; echo 2 >var/d/new; echo 3 >tmp/x; rm tmp/x"
	const made = "var/ 1500000000, var/d/ 1500000000"
	if got := dirTimes(t, s, step(t, s, base, script).DiffID); got != made {
		t.Errorf("not kept: %s, want %s", got, made)
	}
	if got := dirTimes(t, s, step(t, s, base, script, (*layer.Draft).KeepTimes).DiffID); got != "etc/ 1234567890, "+made {
		t.Errorf("kept: %s, want %s", got, "etc/ 1234567890, "+made)
	}
}

// dirTimes lists the times of a layer's directories.
func dirTimes(t *testing.T, s *layer.Store, d digest.Digest) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Tar(context.Background(), d, &b); err != nil {
		t.Fatal(err)
	}
	var list []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			return strings.Join(list, ", ")
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeDir {
			list = append(list, fmt.Sprintf("%s %d", h.Name, h.ModTime.Unix()))
		}
	}
}

// What a sealed chain shows is what was there when it was sealed, also when its layers are unpacked anew elsewhere.
func TestSealedChainShowsTheSame(t *testing.T) {
	needRoot(t)
	ctx := context.Background()
	s := openStore(t, layer.Config{Root: t.TempDir()})
	defer s.Close()
	other := openStore(t, layer.Config{Root: t.TempDir()})
	defer other.Close()
	scripts := []string{
		baseScript,
		`rm -r var/d; mkdir -p var/d; echo 1 >var/d/1; setfattr -n user.k -v v etc/a 2>/dev/null || true`,
		`rm -r var/d; echo back >var/d; mv etc/b usr/bin/b; ln usr/bin/b usr/bin/c`,
		`rm var/d; mkdir var/d; chmod 2775 var/d; chown 5:6 var/d; true`,
		`true`,
		`rm -r etc; mkdir etc; echo new >etc/a`,
		`true`,
	}
	var chain []digest.Digest
	for _, script := range scripts {
		d := step(t, s, chain, script).DiffID
		chain = append(chain, d)
		var b bytes.Buffer
		if err := s.Tar(ctx, d, &b); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Add(ctx, &b, d); err != nil {
			t.Fatal(err)
		}
		if a, b := shown(t, s, chain), shown(t, other, chain); a != b {
			t.Fatalf("after %q:\n%s\nunpacked elsewhere:\n%s", script, a, b)
		}
	}
	if got := shown(t, s, chain); !strings.Contains(got, "./etc/a 100644 0 0 4\n") || strings.Contains(got, "etc/l") {
		t.Errorf("%s", got)
	}
}

func shown(t *testing.T, s *layer.Store, chain []digest.Digest) string {
	t.Helper()
	var out []byte
	err := s.WithChain(context.Background(), chain, func(root *tree.Dir) error {
		cmd := exec.Command("sh", "-c", `find . -mindepth 1 | sort | while read n; do s=; [ -d "$n" ] || s=$(stat -c %s "$n"); printf '%s %o %s %s %s\n' "$n" 0x$(stat -c '%f %u %g' "$n") $s; done`)
		cmd.Dir = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), root.FD())
		var err error
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// Equal steps give equal layers, whenever they run, when the files that they write have set times.
func TestSealIsReproducible(t *testing.T) {
	needRoot(t)
	var ids []digest.Digest
	for range 2 {
		s := openStore(t, layer.Config{Root: t.TempDir()})
		base := step(t, s, nil, `mkdir -p etc; touch -d @1 etc`).DiffID
		ids = append(ids, step(t, s, []digest.Digest{base}, `echo 1 >etc/f; touch -d @5.25 etc/f; rm -f etc/none; mkdir etc/t; rmdir etc/t`).DiffID)
		s.Close()
	}
	if ids[0] != ids[1] {
		t.Errorf("%s, then %s", ids[0], ids[1])
	}
}

// One diff in two places of a chain, and empty ones: overlayfs takes no directory twice.
func TestChainWithRepeats(t *testing.T) {
	needRoot(t)
	s := openStore(t, layer.Config{Root: t.TempDir()})
	defer s.Close()
	a := step(t, s, nil, `echo a >f`).DiffID
	b := step(t, s, []digest.Digest{a}, `echo bb >f; echo g >g`).DiffID
	e := step(t, s, []digest.Digest{a}, `true`).DiffID
	chain := []digest.Digest{e, a, e, b, a, e}
	if got, want := shown(t, s, chain), "./f 100644 0 0 2\n./g 100644 0 0 2\n"; got != want {
		t.Errorf("%s", got)
	}
	m, err := s.Create(context.Background(), "c", chain, layer.CreateOptions{})
	if err != nil || len(m.Lower) != 3 {
		t.Errorf("%v %v", m.Lower, err)
	}
	fd, err := overlay.Stack{Lower: m.Lower, Upper: m.Upper, Work: m.Work}.Mount(probe.Host(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tree.CloseFD(fd)
	if got := shown(t, s, []digest.Digest{e, e}); got != "" {
		t.Errorf("%s", got)
	}
}

// Directories that a tar implies look through drafts as they should, and are not written into what is sealed.
func TestSealOverImplied(t *testing.T) {
	needRoot(t)
	s := openStore(t, layer.Config{Root: t.TempDir()})
	defer s.Close()
	low := step(t, s, nil, `mkdir tmp; chmod 1777 tmp; chown 3:4 tmp`).DiffID
	info, err := s.Add(context.Background(), bytes.NewReader(layertest.Tar(t, layertest.Entry{Name: "tmp/f", Body: "1"})), "")
	if err != nil {
		t.Fatal(err)
	}
	top := step(t, s, []digest.Digest{low, info.DiffID}, `echo 1 >tmp/g`)
	if got, want := listing(t, s, top.DiffID), []string{"5 1777 3:4 tmp/", "0 644 0:0 tmp/g 2"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// A process that is killed leaves each sealed layer whole or absent; what Durable has said yes to is there.
func TestKilledInSeal(t *testing.T) {
	needRoot(t)
	if root := os.Getenv("LAYER_TEST_ROOT"); root != "" {
		failpoint.Arm(os.Getenv(failpoint.Env))
		s := openStore(t, layer.Config{Root: root})
		var chain []digest.Digest
		for _, n := range []string{"a", "b", "c", "d"} {
			chain = append(chain, step(t, s, chain, "echo "+n+" >"+n).DiffID)
			if n == "b" {
				if err := s.Durable(context.Background(), chain...); err != nil {
					t.Fatal(err)
				}
				os.WriteFile(filepath.Join(root, "said"), []byte(chain[0]+" "+chain[1]), 0o600)
			}
		}
		s.Durable(context.Background(), chain...)
		os.Exit(1)
	}
	for _, p := range []string{"layer/before-seal=kill:2", "layer/after-seal=kill:1", "layer/after-seal=kill:4", "layer/before-harden=kill:1", "layer/after-harden=kill:1", "layer/after-harden=kill:2", "none=kill"} {
		root := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledInSeal$")
		cmd.Env = append(os.Environ(), "LAYER_TEST_ROOT="+root, "TMPDIR="+t.TempDir(), failpoint.Env+"="+p) // killed, it tidies nothing
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Fatalf("%s: survived: %s", p, out)
		}
		s := openStore(t, layer.Config{Root: root})
		said, _ := os.ReadFile(filepath.Join(root, "said"))
		for d := range strings.FieldsSeq(string(said)) {
			if !s.Has(digest.Digest(d)) {
				t.Errorf("%s: %s is lost", p, d)
			}
		}
		for _, i := range s.List() {
			s.Retain(i.DiffID)
			if v, err := s.Verify(context.Background(), i.DiffID); err != nil || v.Partly != nil {
				t.Errorf("%s: %+v %v", p, v, err)
			}
		}
		if left, err := s.Unknown(); len(left) > 0 || err != nil {
			t.Errorf("%s: left %v %v", p, left, err)
		}
		s.Close()
	}
}

func TestSealFails(t *testing.T) {
	needRoot(t)
	t.Cleanup(func() { failpoint.Arm("") })
	for _, p := range []string{"layer/before-seal=error", "layer/after-seal=error"} {
		s := openStore(t, layer.Config{Root: t.TempDir()})
		failpoint.Arm(p)
		if _, err := tryStep(t, s, nil, "echo 1 >a"); err == nil {
			t.Errorf("%s: no error", p)
		}
		failpoint.Arm("")
		for _, i := range s.List() {
			if n := s.Holds(i.DiffID); n != 0 {
				t.Errorf("%s: %s has %d holds", p, i.DiffID, n)
			}
		}
		s.Close()
	}
	s := openStore(t, layer.Config{Root: t.TempDir()})
	defer s.Close()
	info := step(t, s, nil, "echo 1 >a")
	failpoint.Arm("layer/before-harden=error:1")
	if err := s.Durable(context.Background(), info.DiffID); err == nil {
		t.Error("no error")
	}
	failpoint.Arm("")
	if err := s.Durable(context.Background(), info.DiffID); err != nil {
		t.Error(err)
	}
	if _, err := s.Stack(slices.Repeat([]digest.Digest{info.DiffID}, layer.MaxDepth+1)); fault.KindOf(err) != fault.Invalid {
		t.Errorf("%v", err)
	}
}

// A sealed layer that goes before it is durable takes nothing else with it.
func TestSealedAndGone(t *testing.T) {
	needRoot(t)
	s := openStore(t, layer.Config{Root: t.TempDir()})
	a := step(t, s, nil, "echo 1 >a").DiffID
	b := step(t, s, nil, "echo 1 >b").DiffID
	if gone := s.Release(a); !slices.Equal(gone, []digest.Digest{a}) {
		t.Errorf("%v", gone)
	}
	if err := s.Durable(context.Background(), a, b); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkSeal(b *testing.B) {
	needRoot(b)
	s := openStore(b, layer.Config{Root: b.TempDir()})
	defer s.Close()
	body := bytes.Repeat([]byte("0123456789abcdef"), 27<<10/16)
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		d, err := s.Draft(layer.Attributes{Mode: 0o755})
		if err != nil {
			b.Fatal(err)
		}
		for i := range 2000 {
			dir := filepath.Join(d.Upper(), fmt.Sprint(i/50))
			os.MkdirAll(dir, 0o755)
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), append(body, byte(n), byte(n>>8)), 0o644); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		info, err := s.Seal(context.Background(), d, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Release(info.DiffID)
		b.StartTimer()
	}
}

func BenchmarkSealNothing(b *testing.B) {
	needRoot(b)
	s := openStore(b, layer.Config{Root: b.TempDir()})
	defer s.Close()
	step(b, s, nil, "true")
	for b.Loop() {
		d, err := s.Draft(layer.Attributes{Mode: 0o755})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Seal(context.Background(), d, nil); err != nil {
			b.Fatal(err)
		}
	}
}
