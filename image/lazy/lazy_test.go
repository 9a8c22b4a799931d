package lazy_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/image/layer"
	"berth/image/lazy"
	"berth/kernel/mount"
	"berth/kernel/probe"
	"berth/kernel/tree"
	"github.com/opencontainers/go-digest"
)

// everything has all that a layer can have.
func everything() []file {
	return []file{
		{name: "./", mode: 0o711, uid: 3},
		{name: "bin/", mode: 0o755},
		{name: "bin/sh", body: noise(1, 300_000), mode: 0o4755},
		{name: "bin/ash", hard: "bin/sh"},
		{name: "lib", link: "usr/lib"},
		{name: "lib/libc.so", body: noise(2, 100_000)}, // through a link whose target is implied
		{name: "etc/", mode: 0o750, uid: 7},
		{name: "etc/passwd", body: "root:x:0:0::/:/bin/sh\n", xattrs: map[string]string{"user.k": "v", "trusted.overlay.redirect": "/x", "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		{name: "twice", body: "one"},
		{name: "twice", body: "two"},
		{name: "deep/er/file", body: "implied"},
		{name: ".wh.gone"},
		{name: "opaque/"},
		{name: "opaque/.wh..wh..opq"},
		{name: "opaque/x", body: "x"},
		{name: ".wh.again"},
		{name: "again/new", body: "n"},
		{name: "zeros", body: strings.Repeat("\x00", 400_000) + "end"},
		{name: "empty"},
		{name: "null", typ: tar.TypeChar, major: 1, minor: 3, mode: 0o666},
		{name: "pipe", typ: tar.TypeFifo, mode: 0o600},
		{name: "dangling", link: "/nowhere"},
	}
}

// The view shows exactly what the unpacked layer is.
func TestViewIsTheLayer(t *testing.T) {
	for _, form := range forms {
		for _, min := range []int{0, 50_000} {
			t.Run(fmt.Sprintf("%s/%d", form, min), func(t *testing.T) {
				p := pack(t, form, makeTar(t, everything()...), 64<<10, min)
				h := newHouse(t, lazy.Config{FillDelay: time.Hour})
				h.add(t, p, newOrigin(p.blob))
				lazyInfo, _ := h.layers.Stat(p.diff)
				shown := describe(t, h.layers.FSPath(p.diff))
				if !h.lazy(t, p.diff) {
					t.Fatal("not lazy")
				}
				if err := h.m.Whole(ctx, p.diff); err != nil {
					t.Fatal(err)
				}
				if h.lazy(t, p.diff) {
					t.Error("still lazy")
				}
				want := describe(t, h.layers.FSPath(p.diff))
				for i := range max(len(shown), len(want)) {
					a, b := "", ""
					if i < len(shown) {
						a = shown[i]
					}
					if i < len(want) {
						b = want[i]
					}
					if a != b {
						t.Errorf("\n view %s\nlayer %s", a, b)
					}
				}
				info, _ := h.layers.Stat(p.diff)
				if info.Size != lazyInfo.Size || info.OpaqueRoot != lazyInfo.OpaqueRoot || !slices.Equal(info.Implied, lazyInfo.Implied) || *info.Root != *lazyInfo.Root {
					t.Errorf("\n view %+v\nlayer %+v", lazyInfo, info)
				}
				var out strings.Builder
				if err := h.layers.Tar(ctx, p.diff, &out); err != nil || digest.FromString(out.String()) != p.diff {
					t.Errorf("the tar is not the layer's: %v", err)
				}
			})
		}
	}
}

// describe lists a tree with all that matters.
func describe(t testing.TB, root string) (lines []string) {
	t.Helper()
	inodes := map[uint64]string{}
	err := filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		line := fmt.Sprintf("%s %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
		if !e.IsDir() {
			line += fmt.Sprintf(" %d bytes %d links %d:%d", st.Size, st.Nlink, unix.Major(st.Rdev), unix.Minor(st.Rdev))
			if first := inodes[st.Ino]; first != "" {
				line += " = " + first
			}
			inodes[st.Ino] = rel
		}
		if st.Rdev != 0 || !e.IsDir() && st.Mode&unix.S_IFMT != unix.S_IFCHR {
			line += fmt.Sprintf(" @%d", st.Mtim.Sec)
		}
		switch {
		case e.Type().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " " + digest.FromBytes(b).Encoded()[:12]
		case e.Type()&os.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			line += " -> " + target
		}
		buf := make([]byte, 1000)
		n, err := unix.Llistxattr(p, buf)
		if err != nil && err != unix.ENOTSUP {
			return err
		}
		names := strings.Split(strings.Trim(string(buf[:max(n, 0)]), "\x00"), "\x00")
		slices.Sort(names)
		for _, x := range names {
			v := make([]byte, 100)
			if n, err := unix.Lgetxattr(p, x, v); err == nil {
				line += fmt.Sprintf(" %s=%x", x, v[:n])
			}
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// cat reads a file of a container.
func (h *house) cat(t testing.TB, id, name string) (string, error) {
	t.Helper()
	var b []byte
	err := h.layers.WithMount(ctx, id, true, func(root *tree.Dir) (err error) {
		b, err = os.ReadFile(root.Path() + "/" + name)
		return err
	})
	return string(b), err
}

// A container starts when hardly anything is here, and what it touches comes first.
func TestTouchedFirst(t *testing.T) {
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			var files []file
			for i := range 40 {
				files = append(files, file{name: fmt.Sprintf("f%02d", i), body: noise(uint64(i), 500_000)})
			}
			p := pack(t, form, makeTar(t, files...), 0, 0)
			o := newOrigin(p.blob)
			o.rate = 4 << 20 // all of it would take five seconds
			h := newHouse(t, lazy.Config{})
			start := time.Now()
			h.add(t, p, o)
			if _, err := h.layers.Create(ctx, "c", []digest.Digest{p.diff}, layer.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			b, err := h.cat(t, "c", "f37")
			if err != nil || b != noise(37, 500_000) {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			took := time.Since(start)
			st := h.m.Status()[0]
			if !h.lazy(t, p.diff) || st.Here > st.Size/2 || st.Missed == 0 {
				t.Errorf("the last file was read after %s, with %d of %d bytes", took, st.Here, st.Size)
			}
			o.mu.Lock()
			o.rate = 0
			o.mu.Unlock()
			waitFor(t, "the layer is whole", func() bool { return !h.lazy(t, p.diff) })
			if b, err := h.cat(t, "c", "f02"); err != nil || b != noise(2, 500_000) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			waitFor(t, "the cache is gone", func() bool {
				left, _ := os.ReadDir(filepath.Join(h.root, "lazy"))
				return len(left) == 0
			})
		})
	}
}

// A container that runs when the layer becomes whole keeps its view, which is served from the unpacked files.
func TestWholeUnderAContainer(t *testing.T) {
	p := pack(t, "estargz", makeTar(t, file{name: "a", body: noise(1, 900_000)}, file{name: "b", body: noise(2, 900_000)}), 100_000, 0)
	o := newOrigin(p.blob)
	keeper := newParker(t)
	h := newHouse(t, lazy.Config{FillDelay: time.Hour, Keeper: keeper})
	h.add(t, p, o)
	h.layers.Create(ctx, "c", []digest.Digest{p.diff}, layer.CreateOptions{})
	err := h.layers.WithMount(ctx, "c", false, func(root *tree.Dir) error {
		if b, err := os.ReadFile(root.Path() + "/a"); err != nil || string(b) != noise(1, 900_000) {
			t.Errorf("%d bytes %v", len(b), err)
		}
		if err := h.m.Whole(ctx, p.diff); err != nil {
			return err
		}
		o.set(false, errors.New("gone"))
		if b, err := os.ReadFile(root.Path() + "/b"); err != nil || string(b) != noise(2, 900_000) {
			t.Errorf("%d bytes %v", len(b), err)
		}
		if s := h.m.Status(); len(s) != 1 || !s[0].Whole || s[0].Views != 1 {
			t.Errorf("%+v", s)
		}
		// The next engine serves it on as well.
		h.close(t)
		h.open(t)
		unix.Syncfs(root.FD())
		os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0)
		if b, err := os.ReadFile(root.Path() + "/b"); err != nil || string(b) != noise(2, 900_000) {
			t.Errorf("after a restart: %d bytes %v", len(b), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the view is forgotten", func() bool { names, _ := keeper.Parked(ctx); return len(h.m.Status()) == 0 && len(names) == 0 })
}

func TestDamagedChunk(t *testing.T) {
	p := pack(t, "zstd:chunked", makeTar(t, file{name: "a", body: noise(1, 200_000)}, file{name: "b", body: noise(2, 200_000)}), 0, 0)
	bad := slices.Clone(p.blob)
	bad[100_000] ^= 1
	o := newOrigin(bad)
	h := newHouse(t, lazy.Config{FillDelay: time.Hour})
	h.add(t, p, o)
	h.layers.Create(ctx, "c", []digest.Digest{p.diff}, layer.CreateOptions{})
	if _, err := h.cat(t, "c", "a"); !errors.Is(err, unix.EIO) {
		t.Errorf("a damaged chunk was served: %v", err)
	}
	if b, err := h.cat(t, "c", "b"); err != nil || b != noise(2, 200_000) {
		t.Errorf("%d bytes %v", len(b), err)
	}
	short, cancel := contextWith(2 * time.Second)
	defer cancel()
	if err := h.m.Whole(short, p.diff); err == nil {
		t.Error("a layer with a damaged chunk is taken for whole")
	}
	o.mu.Lock()
	copy(o.blob, p.blob)
	o.mu.Unlock()
	if err := h.m.Whole(ctx, p.diff); err != nil {
		t.Error(err)
	}
	if b, err := h.cat(t, "c", "a"); err != nil || b != noise(1, 200_000) {
		t.Errorf("%d bytes %v", len(b), err)
	}
}

// Damage in the cache on disk is noticed and mended.
func TestDamagedCache(t *testing.T) {
	p := pack(t, "estargz", makeTar(t, file{name: "a", body: noise(1, 400_000)}), 100_000, 0)
	h := newHouse(t, lazy.Config{FillDelay: time.Hour, Keeper: newParker(t)})
	h.add(t, p, newOrigin(p.blob))
	cache, err := filepath.Glob(filepath.Join(h.root, "lazy", "*", "blob"))
	if err != nil || len(cache) != 1 {
		t.Fatal(cache, err)
	}
	h.layers.Create(ctx, "c", []digest.Digest{p.diff}, layer.CreateOptions{})
	f, _ := os.OpenFile(cache[0], os.O_RDWR, 0)
	f.WriteAt(make([]byte, 300_000), 50_000)
	f.Close()
	if b, err := h.cat(t, "c", "a"); err != nil || b != noise(1, 400_000) {
		t.Errorf("%d bytes %v", len(b), err)
	}
}

func TestDeadRegistry(t *testing.T) {
	p := pack(t, "estargz", makeTar(t, file{name: "a", body: noise(1, 2_000_000)}, file{name: "z", body: noise(9, 900_000)}), 0, 0)
	o := newOrigin(p.blob)
	h := newHouse(t, lazy.Config{FillDelay: time.Hour, ReadTimeout: time.Second})
	h.add(t, p, o)
	h.layers.Create(ctx, "c", []digest.Digest{p.diff}, layer.CreateOptions{})
	for name, break_ := range map[string]func(){
		"refuses": func() { o.set(false, errors.New("503")) },
		"silent":  func() { o.set(true, nil) },
		"denies":  func() { o.set(false, fault.New(fault.Forbidden, "denied")) },
	} {
		break_()
		start := time.Now()
		_, err := h.cat(t, "c", "a")
		if !errors.Is(err, unix.EIO) || time.Since(start) > 6*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(start))
		}
	}
	o.set(false, nil)
	if b, err := h.cat(t, "c", "a"); err != nil || b != noise(1, 2_000_000) {
		t.Errorf("when it is back: %d bytes %v", len(b), err)
	}
}

func TestNotLazy(t *testing.T) {
	raw := makeTar(t, file{name: "a", body: "x"})
	good := pack(t, "estargz", raw, 0, 0)
	h := newHouse(t, lazy.Config{FillDelay: time.Hour})
	for name, change := range map[string]func(p *packed){
		"no annotation": func(p *packed) { p.desc.Annotations = nil },
		"other digest": func(p *packed) {
			p.desc.Annotations = map[string]string{"containerd.io/snapshot/stargz/toc.digest": digest.FromString("x").String()}
		},
		"no digest": func(p *packed) {
			p.desc.Annotations = map[string]string{"containerd.io/snapshot/stargz/toc.digest": "sha256:zz"}
		},
		"no footer": func(p *packed) { p.blob = slices.Clone(p.blob); p.blob[len(p.blob)-20] ^= 1 },
		"position": func(p *packed) {
			p.desc.Annotations = map[string]string{"io.github.containers.zstd-chunked.manifest-checksum": digest.FromString("x").String(), "io.github.containers.zstd-chunked.manifest-position": "5:999999999999:5:1"}
		},
	} {
		p := good
		change(&p)
		_, err := h.m.Add(ctx, lazy.Layer{Descriptor: p.desc, DiffID: p.diff, From: newOrigin(p.blob)})
		if k := fault.KindOf(err); k != fault.NotImplemented && k != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := newOrigin(good.blob)
	o.set(false, fault.New(fault.Unavailable, "503"))
	short := lazy.Layer{Descriptor: good.desc, DiffID: good.diff, From: o}
	c, cancel := contextWith(300 * time.Millisecond)
	defer cancel()
	if _, err := h.m.Add(c, short); err == nil {
		t.Error("added from a dead registry")
	}
	for _, dir := range []string{"lazy", "layer/d", "layer/tmp"} {
		if left, _ := os.ReadDir(filepath.Join(h.root, dir)); len(left) != 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
}

func TestManyFilesAndReaders(t *testing.T) {
	var files []file
	for i := range 10_000 {
		files = append(files, file{name: fmt.Sprintf("d%d/f%d", i%100, i), body: fmt.Sprintf("content of %d %s", i, noise(uint64(i), i%700))})
	}
	p := pack(t, "zstd:chunked", makeTar(t, files...), 0, 0)
	h := newHouse(t, lazy.Config{})
	h.add(t, p, newOrigin(p.blob))
	h.layers.Create(ctx, "c", []digest.Digest{p.diff}, layer.CreateOptions{})
	err := h.layers.WithMount(ctx, "c", true, func(root *tree.Dir) error {
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := g; i < len(files); i += 8 {
					f := files[(i*7919)%len(files)]
					if b, err := os.ReadFile(root.Path() + "/" + f.name); err != nil || string(b) != f.body {
						t.Errorf("%s: %d bytes, %v", f.name, len(b), err)
						return
					}
				}
			}()
		}
		wg.Wait()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Removing a layer under load, and its image's last hold, leaves nothing.
func TestRemovedUnderLoad(t *testing.T) {
	p := pack(t, "estargz", makeTar(t, file{name: "a", body: noise(1, 4_000_000)}), 50_000, 0)
	o := newOrigin(p.blob)
	o.rate = 1 << 20
	keeper := newParker(t)
	h := newHouse(t, lazy.Config{Keeper: keeper, ReadTimeout: 5 * time.Second})
	h.add(t, p, o)
	path := h.layers.FSPath(p.diff)
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				if _, err := os.ReadFile(path + "/a"); err != nil {
					return
				}
			}
		}()
	}
	time.Sleep(300 * time.Millisecond)
	if gone := h.layers.Release(p.diff); len(gone) != 1 {
		t.Errorf("released %v", gone)
	}
	wg.Wait()
	h.layers.WaitTrash(ctx)
	for _, dir := range []string{"lazy", "layer/d", "layer/tmp", "layer/trash"} {
		if left, _ := os.ReadDir(filepath.Join(h.root, dir)); len(left) != 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
	if names, _ := keeper.Parked(ctx); len(names) != 0 {
		t.Errorf("parked: %v", names)
	}
	if list, _ := mount.Self(func(i *mount.Info) bool { return strings.HasPrefix(i.Point, h.root) }); len(list) != 0 {
		t.Errorf("mounted: %+v", list)
	}
}

// After a reboot nothing is mounted; the layer is shown anew and finished.
func TestReboot(t *testing.T) {
	p := pack(t, "zstd:chunked", makeTar(t, file{name: "a", body: noise(1, 700_000)}, file{name: "b", body: noise(2, 700_000)}), 0, 0)
	o := newOrigin(p.blob)
	h := newHouse(t, lazy.Config{FillDelay: time.Hour, Keeper: newParker(t)})
	h.add(t, p, o)
	h.layers.Create(ctx, "c", []digest.Digest{p.diff}, layer.CreateOptions{})
	if b, err := h.cat(t, "c", "a"); err != nil || b != noise(1, 700_000) {
		t.Fatalf("%d bytes %v", len(b), err)
	}
	h.m.Shutdown() // as if the keeper and all mounts were gone
	h.layers.Close()
	h.cfg.Keeper = newParker(t)
	o.set(true, nil)
	h.cfg.Open = func(context_, string, descriptor) (lazy.Ranger, error) { return o, nil }
	h.open(t)
	if !h.lazy(t, p.diff) {
		t.Fatal("the layer is not lazy any more")
	}
	if b, err := h.cat(t, "c", "a"); err != nil || b != noise(1, 700_000) {
		t.Errorf("what was fetched before: %d bytes %v", len(b), err)
	}
	o.set(false, nil)
	waitFor(t, "the layer is finished", func() bool { return !h.lazy(t, p.diff) })
	if b, err := h.cat(t, "c", "b"); err != nil || b != noise(2, 700_000) {
		t.Errorf("%d bytes %v", len(b), err)
	}
}

func TestSecondPull(t *testing.T) {
	p := pack(t, "estargz", makeTar(t, file{name: "a", body: noise(1, 700_000)}), 0, 0)
	h := newHouse(t, lazy.Config{FillDelay: time.Hour, ReadTimeout: time.Second})
	dead := newOrigin(p.blob)
	h.add(t, p, dead)
	dead.set(false, fault.New(fault.Unauthorized, "who are you"))
	h.layers.Create(ctx, "c", []digest.Digest{p.diff}, layer.CreateOptions{})
	if _, err := h.cat(t, "c", "a"); !errors.Is(err, unix.EIO) {
		t.Errorf("%v", err)
	}
	h.add(t, p, newOrigin(p.blob)) // credentials are better now
	if b, err := h.cat(t, "c", "a"); err != nil || b != noise(1, 700_000) {
		t.Errorf("%d bytes %v", len(b), err)
	}
	// An ordinary pull that comes too makes it whole.
	st, err := h.layers.Stage(ctx, strings.NewReader(string(p.blob)), p.diff)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.layers.Commit(st); err != nil {
		t.Fatal(err)
	}
	if h.lazy(t, p.diff) {
		t.Error("still lazy")
	}
	if b, err := h.cat(t, "c", "a"); err != nil || b != noise(1, 700_000) {
		t.Errorf("%d bytes %v", len(b), err)
	}
}

// Where the kernel cannot send requests again nothing is served, and what an earlier kernel left is fetched to its end.
func TestWithoutResend(t *testing.T) {
	p := pack(t, "zstd:chunked", makeTar(t, file{name: "a", body: noise(1, 700_000)}), 0, 0)
	o := newOrigin(p.blob)
	h := newHouse(t, lazy.Config{FillDelay: time.Hour, Keeper: newParker(t)})
	h.add(t, p, o)
	h.layers.Create(ctx, "c", []digest.Digest{p.diff}, layer.CreateOptions{})
	h.m.Shutdown()
	h.layers.Close()
	o.set(true, nil)
	h.cfg.Facts = probe.Host().Without(probe.FuseResend)
	h.cfg.Open = func(context_, string, descriptor) (lazy.Ranger, error) { return o, nil }
	h.open(t)
	if h.m.Why() == "" || h.m.Can(p.desc) {
		t.Error("it can")
	}
	if _, err := h.m.Add(ctx, lazy.Layer{Descriptor: p.desc, DiffID: digest.FromString("other"), From: o}); fault.KindOf(err) != fault.NotImplemented {
		t.Errorf("%v", err)
	}
	if _, err := h.layers.Get("c"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a container on a layer that is not shown: %v", err)
	}
	if _, err := h.layers.Create(ctx, "d", []digest.Digest{p.diff}, layer.CreateOptions{}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("%v", err)
	}
	if _, err := h.cat(t, "c", "a"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("%v", err)
	}
	o.set(false, nil)
	if err := h.m.Whole(ctx, p.diff); err != nil {
		t.Fatal(err)
	}
	if b, err := h.cat(t, "c", "a"); err != nil || b != noise(1, 700_000) {
		t.Errorf("%d bytes %v", len(b), err)
	}
}
