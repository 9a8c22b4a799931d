package transfer

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
	"berth/image/remote"
)

// The child of a crash test is this program again. It opens the store in the directory and does what it is told: "pull NAME",
// "push NAME", or "churn HOST" for ever. Whoever started it kills it, or a failpoint does.
const childEnv = "BERTH_TRANSFER_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		if err := child(strings.Fields(what)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(words []string) error {
	if err := failpoint.Arm(os.Getenv(failpoint.Env)); err != nil {
		return err
	}
	images, err := image.Open(image.Config{Root: words[0]})
	if err != nil {
		return err
	}
	defer images.Close()
	client, err := remote.New(remote.Config{})
	if err != nil {
		return err
	}
	t := New(Config{Images: images, Remote: client})
	if words[1] == "churn" {
		return churn(t, words[2])
	}
	n, err := ref.Parse(words[2])
	if err != nil {
		return err
	}
	if words[1] == "pull" {
		_, err = t.Pull(ctx, PullRequest{Name: n})
	} else {
		_, err = t.Push(ctx, PushRequest{Name: n})
	}
	return err
}

// churn pulls, pushes, and removes images that share layers, from several goroutines.
func churn(t *Transfer, host string) error {
	fmt.Println("ready")
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := w; ; i++ {
				n, _ := ref.Parse(fmt.Sprintf("%s/app%d:1", host, i%4))
				if _, err := t.Pull(ctx, PullRequest{Name: n}); err != nil {
					fmt.Fprintln(os.Stderr, "pull", n, err)
				}
				to, _ := ref.Parse(fmt.Sprintf("%s/copy%d:1", host, i%3))
				if err := t.cfg.Images.Tag(n.String(), to.String()); err == nil {
					t.Push(ctx, PushRequest{Name: to}) // another one may have removed it
				}
				t.cfg.Images.Remove(ctx, n.String(), image.RemoveOptions{})
				t.cfg.Images.Remove(ctx, to.String(), image.RemoveOptions{})
			}
		})
	}
	wg.Wait()
	return nil
}

// run runs a child to its end and tells whether it was killed.
func (e *engine) run(points string, words ...string) (killed bool) {
	e.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+strings.Join(append([]string{e.root}, words...), " "), failpoint.Env+"="+points)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	if s := cmd.ProcessState.String(); !strings.Contains(s, "killed") {
		e.t.Fatalf("%s: %s\n%s", points, s, out)
	}
	return true
}

// shut closes the store, so that a child can have it; open opens it again.
func (e *engine) shut() {
	e.t.Helper()
	if err := e.images.Close(); err != nil {
		e.t.Fatal(err)
	}
}

func (e *engine) open() {
	e.t.Helper()
	images, err := image.Open(image.Config{Root: e.root})
	if err != nil {
		e.t.Fatal(err)
	}
	e.images = images
	e.t.Cleanup(func() { images.Close() })
	e.Transfer = New(Config{Images: images, Remote: e.cfg.Remote, KeepBlobs: e.cfg.KeepBlobs})
}

// Wherever a pull dies, there is no name without its image, nothing stays behind, and the next pull works.
func TestPullDies(t *testing.T) {
	for _, c := range []struct {
		point string
		named bool // it was done when it died
	}{
		{"transfer/mid-layer=kill", false},
		{"transfer/mid-layer=kill:3", false},
		{"transfer/before-commit=kill", false},
		{"layer/before-sync=kill", false},
		{"layer/before-rename=kill:2", false},
		{"layer/after-rename=kill:2", false},
		{"transfer/before-name=kill", false},
		{"blob/before-sync=kill", false},
		{"blob/before-name=kill:2", false},
		{"image/before-commit=kill", false},
		{"image/after-commit=kill", true},
	} {
		t.Run(c.point, func(t *testing.T) {
			g := newRegistry(t)
			e := newEngine(t, nil)
			g.build("x", "1", ocispec.Platform{}, nil, "a", "b", "c")
			name := g.host() + "/x:1"
			e.shut()
			if !e.run(c.point, "pull", name) {
				t.Fatal("the child was not killed: the failpoint is not on its way")
			}
			e.open()
			_, err := e.images.Resolve(name)
			if c.named != (err == nil) {
				t.Errorf("name: %v", err)
			}
			if !c.named {
				if got := e.rooms(); got != "layers 0 staged 0 blobs 0 half 0 trash 0" {
					t.Errorf("left behind: %s", got)
				}
			}
			e.mustPull(name)
			e.has(name, "a", "b", "c")
			if got := e.rooms(); got != "layers 3 staged 0 blobs 2 half 0 trash 0" {
				t.Error(got)
			}
		})
	}
}

// Wherever a push dies, the target has no tag that leads to something incomplete, and the next push works.
func TestPushDies(t *testing.T) {
	for _, c := range []struct {
		point string
		named bool
	}{
		{"transfer/push-mid-layer=kill", false},
		{"transfer/push-mid-layer=kill:2", false},
		{"transfer/push-before-manifest=kill", false},
		{"transfer/push-before-tag=kill", false},
		{"transfer/push-after-tag=kill", true},
	} {
		t.Run(c.point, func(t *testing.T) {
			g := newRegistry(t)
			e := newEngine(t, nil)
			name := g.host() + "/made:1"
			e.load(name, "a", "b", "c")
			e.shut()
			if !e.run(c.point, "push", name) {
				t.Fatal("the child was not killed: the failpoint is not on its way")
			}
			if _, there := g.manifests["made"]["1"]; there != c.named {
				t.Errorf("the target has the tag: %t", there)
			}
			e.open()
			done, _, err := e.push(name, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.named && string(done.Images[0].Digest) != string(g.manifests["made"]["1"].desc.Digest) {
				t.Error("the second push gave another digest")
			}
			other := newEngine(t, nil)
			other.mustPull(name)
			other.has(name, "a", "b", "c")
		})
	}
}

// TestKilledAnywhere kills pulls, pushes and removals at moments that nobody chose. BERTH_SOAK makes a thousand kills, BERTH_SEED
// repeats a run's choices.
func TestKilledAnywhere(t *testing.T) {
	kills := 15
	if os.Getenv("BERTH_SOAK") != "" {
		kills = 1000
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("BERTH_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("%d kills, BERTH_SEED=%d", kills, seed)
	r := rand.New(rand.NewPCG(seed, 1))
	g := newRegistry(t)
	e := newEngine(t, nil)
	texts := [][]string{{"base", "a"}, {"base", "b", "c"}, {"base", "a", "d"}, {"other"}}
	for i, list := range texts {
		g.build(fmt.Sprintf("app%d", i), "1", ocispec.Platform{}, []string{"gzip", "tar", "zstd"}, list...)
	}
	e.shut()
	for n := range kills {
		e.churn(g, n, func() { time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond) })
		if n%5 == 4 || n == kills-1 {
			e.check(g, n, texts)
		}
	}
	// On a slow machine none of them has come far: one more has the time it needs to push something.
	e.churn(g, kills, func() {
		for range 6000 {
			g.mu.Lock()
			pushed := g.manifests["copy0"] != nil || g.manifests["copy1"] != nil || g.manifests["copy2"] != nil
			g.mu.Unlock()
			if pushed {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Error("no push comes to its end: this proves nothing")
	})
	e.check(g, kills, texts)
}

// churn starts a child that pulls and pushes, and kills it after a while.
func (e *engine) churn(g *registry, n int, while func()) {
	e.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+e.root+" churn "+g.host(), failpoint.Env+"=")
	out, err := cmd.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	if line == "ready\n" {
		while()
	}
	cmd.Process.Kill()
	cmd.Wait()
	if line != "ready\n" {
		e.t.Fatalf("kill %d: the store does not open", n)
	}
}

// check opens the store after a kill and looks that everything that has a name is whole, and that removing it frees everything.
func (e *engine) check(g *registry, n int, texts [][]string) {
	e.t.Helper()
	e.open()
	defer e.shut()
	for i, list := range texts {
		name := fmt.Sprintf("%s/app%d:1", g.host(), i)
		if _, err := e.images.Resolve(name); err == nil {
			e.has(name, list...)
		}
	}
	for repo, list := range g.manifests {
		for what, doc := range list {
			for _, d := range references(doc.raw) {
				if _, ok := g.blobs[repo+"@"+d]; !ok {
					e.t.Errorf("kill %d: %s:%s at the registry names %s, which it does not have", n, repo, what, d)
				}
			}
		}
	}
	all, err := e.images.List(ctx, image.ListOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	for _, img := range all {
		if _, err := e.images.Remove(ctx, img.ID, image.RemoveOptions{Force: true}); err != nil && !fault.Is(err, fault.NotFound) {
			e.t.Errorf("kill %d: %v", n, err)
		}
	}
	if got := e.rooms(); got != "layers 0 staged 0 blobs 0 half 0 trash 0" {
		e.t.Errorf("kill %d: left behind: %s", n, got)
	}
}
