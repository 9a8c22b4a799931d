package lazy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/image/layer"
	"berth/image/lazy"
)

// The engine that dies is this test in a process of its own. It parks descriptors by sending them over a socket to its
// parent, which plays the keeper and then the next engine.

const engineVariable = "BERTH_TEST_LAZY_ENGINE"

// order is what an engine is to do.
type order struct {
	Root, Blob string
	Desc       ocispec.Descriptor
	Diff       digest.Digest
	Look       bool // it looks into its own view, at a file that does not come
}

func TestMain(m *testing.M) {
	if text := os.Getenv(engineVariable); text != "" {
		engine(text)
		return
	}
	os.Exit(m.Run())
}

// engine adds a layer whose registry stops after the table of contents, says so, and waits to be killed.
func engine(text string) {
	var o order
	must(json.Unmarshal([]byte(text), &o))
	blob, err := os.ReadFile(o.Blob)
	must(err)
	from := newOrigin(blob)
	layers, err := layer.Open(layer.Config{Root: filepath.Join(o.Root, "layer")})
	must(err)
	m, err := lazy.Open(context.Background(), lazy.Config{Root: filepath.Join(o.Root, "lazy"), Layers: layers, Keeper: sender{}, FillDelay: time.Hour})
	must(err)
	p, err := m.Look(context.Background(), lazy.Layer{Descriptor: o.Desc, DiffID: o.Diff, From: from})
	must(err)
	from.set(true, nil)
	_, err = p.Commit(context.Background())
	must(err)
	if o.Look {
		go func() { // not through the page cache, for which a process that is killed does not wait
			fd, err := unix.Open(layers.FSPath(o.Diff)+"/a", unix.O_RDONLY|unix.O_DIRECT, 0)
			must(err)
			b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
			must(err)
			unix.Read(fd, b)
		}()
		time.Sleep(300 * time.Millisecond)
	}
	fmt.Println("ready")
	select {}
}

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// sender is the keeper as the child sees it: descriptor 3 is the socket.
type sender struct{}

func (sender) Park(ctx context.Context, name string, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.Sendmsg(3, []byte(name), unix.UnixRights(int(fd)), nil, 0)
	}); err == nil {
		err = cerr
	}
	return err
}
func (sender) Take(ctx context.Context, name string) (*os.File, error) {
	return nil, fault.New(fault.NotFound, "nothing")
}
func (sender) Unpark(ctx context.Context, name string) error { return nil }
func (sender) Parked(ctx context.Context) ([]string, error)  { return nil, nil }

// startEngine runs an engine until it is ready, with what it parked.
func startEngine(t *testing.T, o order, k *parker) *exec.Cmd {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "keeper")
	text, _ := json.Marshal(o)
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), engineVariable+"="+string(text))
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	buf := make([]byte, 1000)
	if n, _ := out.Read(buf); strings.TrimSpace(string(buf[:n])) != "ready" {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("engine: %s", buf[:n])
	}
	name, rights := make([]byte, 200), make([]byte, 200)
	n, rn, _, _, err := unix.Recvmsg(pair[0], name, rights, unix.MSG_DONTWAIT)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), string(name[:n]))
	defer f.Close()
	if err := k.Park(ctx, string(name[:n]), f); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func crashLayer(t *testing.T) (packed, order) {
	p := pack(t, "estargz", makeTar(t, file{name: "a", body: noise(1, 800_000)}, file{name: "b", body: noise(2, 800_000)}), 0, 0)
	o := order{Root: t.TempDir(), Blob: filepath.Join(t.TempDir(), "blob"), Desc: p.desc, Diff: p.diff}
	if err := os.WriteFile(o.Blob, p.blob, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { forceUnmount(o.Root) })
	return p, o
}

// openNext is the next engine.
func openNext(t *testing.T, o order, k *parker, from *origin) *house {
	t.Helper()
	h := &house{root: o.Root, cfg: lazy.Config{Keeper: k, Open: func(context_, string, descriptor) (lazy.Ranger, error) { return from, nil }}}
	h.open(t)
	t.Cleanup(func() {
		h.m.Close()
		h.layers.Close()
	})
	return h
}

// A process that waits in read(2) while the engine is killed gets its bytes from the next engine, at whatever step the first one died.
func TestEngineDies(t *testing.T) {
	needLazy(t)
	p, o := crashLayer(t)
	k := newParker(t)
	cmd := startEngine(t, o, k)
	path := filepath.Join(o.Root, "layer", "d")
	short, err := os.ReadDir(path)
	if err != nil || len(short) != 1 {
		t.Fatal(short, err)
	}
	path = filepath.Join(path, short[0].Name(), "fs")
	// A container's processes: one inside an overlay, one that is in the middle of a read.
	reader := exec.Command("sha256sum", path+"/a", path+"/b")
	var out strings.Builder
	reader.Stdout, reader.Stderr = &out, &out
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	cmd.Process.Kill()
	cmd.Wait()
	time.Sleep(100 * time.Millisecond)
	if out.Len() > 0 {
		t.Fatalf("the reader did not wait: %s", out.String())
	}
	h := openNext(t, o, k, newOrigin(p.blob))
	if err := reader.Wait(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	want := fmt.Sprintf("%s  %s/a\n%s  %s/b\n", digest.FromString(noise(1, 800_000)).Encoded(), path, digest.FromString(noise(2, 800_000)).Encoded(), path)
	if out.String() != want {
		t.Errorf("%s, want %s", out.String(), want)
	}
	waitFor(t, "the layer is whole", func() bool { info, err := h.layers.Stat(p.diff); return err == nil && !info.Lazy })
}

// An engine that is killed while it looks into its own view cannot end, and keeps the store's lock, until Rescue.
func TestRescue(t *testing.T) {
	needLazy(t)
	p, o := crashLayer(t)
	o.Look = true
	k := newParker(t)
	cmd := startEngine(t, o, k)
	cmd.Process.Signal(syscall.SIGKILL)
	done := make(chan struct{})
	go func() {
		cmd.Wait()
		close(done)
	}()
	stuck := false
	select {
	case <-done:
		t.Log("this kernel lets the engine end by itself")
	case <-time.After(500 * time.Millisecond):
		stuck = true
		if _, err := layer.Open(layer.Config{Root: filepath.Join(o.Root, "layer")}); fault.KindOf(err) != fault.Conflict {
			t.Errorf("the store of an engine that cannot end: %v", err)
		}
	}
	n, err := lazy.Rescue(ctx, k)
	if err != nil || stuck && n == 0 {
		t.Fatalf("released %d, %v", n, err)
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the engine still hangs")
	}
	h := openNext(t, o, k, newOrigin(p.blob))
	h.layers.Create(ctx, "c", []digest.Digest{p.diff}, layer.CreateOptions{})
	if b, err := h.cat(t, "c", "a"); err != nil || b != noise(1, 800_000) {
		t.Errorf("%d bytes %v", len(b), err)
	}
}

// Killed between any two steps of Add and of becoming whole, the layer is served or gone, and nothing is left over.
func TestKilledAtEachStep(t *testing.T) {
	needLazy(t)
	for _, point := range []string{"lazy/before-admit", "lazy/after-park", "layer/before-complete", "layer/after-complete", "lazy/before-stage"} {
		t.Run(strings.ReplaceAll(point, "/", " "), func(t *testing.T) { killAt(t, point) })
	}
}

func killAt(t *testing.T, point string) {
	p := pack(t, "zstd:chunked", makeTar(t, file{name: "a", body: noise(1, 100_000)}), 0, 0)
	h := newHouse(t, lazy.Config{Keeper: newParker(t), FillDelay: time.Hour})
	o := newOrigin(p.blob)
	h.cfg.Open = func(context_, string, descriptor) (lazy.Ranger, error) { return o, nil }
	failpoint.Arm(point + "=error")
	t.Cleanup(func() { failpoint.Arm("") })
	_, err := h.m.Add(ctx, lazy.Layer{Descriptor: p.desc, DiffID: p.diff, From: o})
	if err == nil {
		c, cancel := contextWith(300 * time.Millisecond)
		h.m.Whole(c, p.diff)
		cancel()
	}
	failpoint.Arm("")
	h.close(t)
	h.open(t)
	if !h.layers.Has(p.diff) {
		if err == nil {
			t.Fatal("an added layer is lost")
		}
		for _, dir := range []string{"lazy", "layer/d"} {
			if left, _ := os.ReadDir(filepath.Join(h.root, dir)); len(left) != 0 {
				t.Errorf("left in %s: %v", dir, left)
			}
		}
		h.add(t, p, o)
	} else if err != nil {
		t.Fatalf("%v, and the layer is there", err)
	} else {
		h.layers.Retain(p.diff)
	}
	h.layers.Create(ctx, "c", []digest.Digest{p.diff}, layer.CreateOptions{})
	if b, err := h.cat(t, "c", "a"); err != nil || b != noise(1, 100_000) {
		t.Errorf("%d bytes %v", len(b), err)
	}
	if err := h.m.Whole(ctx, p.diff); err != nil {
		t.Error(err)
	}
}
