package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const (
	harbour    = "127.0.0.1:5000" // on the engine's host
	seeds      = 4                // images that are pulled again and again
	layerBytes = 400_000
)

// TestKillInTransit kills the engine or the registry while images are pulled, pushed and collected. At the end every push that was
// confirmed can be pulled whole, every image here is whole, and nothing else is on either disk.
func TestKillInTransit(t *testing.T) {
	kills, seed := ordeal(t)
	e := newEngine(t)
	h := newHarbour(t, e)
	e.start()
	t.Cleanup(func() { e.end() })
	h.start()

	s := &transit{e: e, h: h, kept: map[string]v1.Hash{}}
	base, err := random.Layer(layerBytes, "application/vnd.docker.image.rootfs.diff.tar.gzip")
	if err != nil {
		t.Fatal(err)
	}
	for i := range seeds {
		img, err := random.Image(layerBytes, 3)
		if err == nil {
			img, err = mutate.AppendLayers(img, base) // they share one
		}
		if err == nil {
			err = h.push(fmt.Sprintf("seed/img%d:1", i), img)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.keep(fmt.Sprintf("seed/img%d:1", i), img)
	}

	var done atomic.Bool
	var wg sync.WaitGroup
	for w, work := range []func(*rand.Rand, int){s.pull, s.pull, s.push, s.pushDirectly, s.collect} {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			for n := 0; !done.Load() && !t.Failed(); n++ {
				work(r, w*1_000_000+n)
			}
		})
	}
	r := rand.New(rand.NewPCG(seed, 1000))
	for k := 0; k < kills && !t.Failed(); k++ {
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
		if r.IntN(2) == 0 {
			e.kill()
			e.start()
		} else {
			h.kill()
			h.start()
		}
	}
	done.Store(true)
	wg.Wait()
	t.Logf("%d pulls and %d pushes by the engine, %d pushes beside it, %d collections", s.pulls.Load(), s.pushes.Load(), s.direct.Load(), s.collections.Load())

	h.collect("{}")
	for ref, want := range s.kept {
		if err := h.check(ref, want); err != nil {
			t.Errorf("%s, which was pushed: %v", ref, err)
		}
	}
	s.engineIsWhole()
	s.engineIsEmpty()
	s.registryIsEmpty()
	if t.Failed() {
		t.Logf("the engine said:\n%s\nthe registry said:\n%s", e.tail(), h.tail())
	}
}

// harbourServer is a registry that is killed and started again.
type harbourServer struct {
	t      *testing.T
	e      *engine
	dir    string
	client *http.Client

	mu  sync.Mutex
	cmd *exec.Cmd
}

func newHarbour(t *testing.T, e *engine) *harbourServer {
	h := &harbourServer{t: t, e: e, dir: filepath.Join(e.dir, "registry")}
	h.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		MaxIdleConnsPerHost: 8,
		DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
			return e.world.Dial(e.world.Host, network, address)
		},
	}}
	t.Cleanup(func() {
		if h.cmd != nil {
			h.cmd.Process.Kill()
			h.cmd.Wait()
		}
	})
	return h
}

func (h *harbourServer) start() {
	log, err := os.OpenFile(h.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	// A grace of nothing makes the collector as eager as it can be: what it may take is decided by leases alone.
	os.WriteFile(h.dir+".json", []byte(`{"Grace": 1}`), 0o600)
	cmd := exec.Command(filepath.Join(h.e.bin, "berthd"), "registry", "serve", "--addr", harbour, "--root", h.dir, "--config", h.dir+".json")
	cmd.Stdout, cmd.Stderr = log, log
	if err := h.e.world.Start(cmd); err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	h.cmd = cmd
	h.mu.Unlock()
	answers := func() bool {
		r, err := h.client.Get("http://" + harbour + "/v2/")
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	}
	if eventually(answers) {
		return
	}
	h.t.Fatalf("the registry does not answer:\n%s", h.tail())
}

func (h *harbourServer) kill() {
	h.cmd.Process.Kill()
	h.cmd.Wait()
}

func (h *harbourServer) tail() string {
	b, _ := os.ReadFile(h.dir + ".log")
	return string(b[max(0, len(b)-4000):])
}

func (h *harbourServer) options() []remote.Option {
	return []remote.Option{remote.WithTransport(h.client.Transport), remote.WithRetryBackoff(remote.Backoff{Duration: time.Millisecond, Steps: 1})}
}

func (h *harbourServer) push(ref string, img v1.Image) error {
	tag, err := name.NewTag(harbour + "/" + ref)
	if err != nil {
		return err
	}
	return remote.Write(tag, img, h.options()...)
}

// check pulls an image whole and compares every digest.
func (h *harbourServer) check(ref string, want v1.Hash) error {
	tag, err := name.NewTag(harbour + "/" + ref)
	if err != nil {
		return err
	}
	img, err := remote.Image(tag, h.options()...)
	if err != nil {
		return err
	}
	if got, err := img.Digest(); err != nil || got != want {
		return fmt.Errorf("it has the digest %v (%v), want %v", got, err, want)
	}
	return validate.Image(img)
}

// collect asks for a collection; that the registry is gone meanwhile is nobody's fault.
func (h *harbourServer) collect(policy string) bool {
	resp, err := h.client.Post("http://"+harbour+"/berth/registry/v1/gc", "application/json", strings.NewReader(policy))
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 && resp.StatusCode != http.StatusConflict {
		h.t.Errorf("collect: %d %s", resp.StatusCode, b)
	}
	return err == nil
}

// transit is the traffic.
type transit struct {
	e *engine
	h *harbourServer

	pulls, pushes, direct, collections atomic.Int64

	mu   sync.Mutex
	kept map[string]v1.Hash // references whose push was confirmed
}

func (s *transit) keep(ref string, img v1.Image) {
	d, err := img.Digest()
	if err != nil {
		s.e.t.Error(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[ref] = d
}

// pull brings an image here, looks at it if that went well, and takes it away again most times.
func (s *transit) pull(r *rand.Rand, _ int) {
	repo := fmt.Sprintf("%s/seed/img%d", harbour, r.IntN(seeds))
	ok, err := s.stream("/images/create?fromImage=" + url.QueryEscape(repo) + "&tag=1")
	if err == errGone || !ok {
		time.Sleep(5 * time.Millisecond)
		return
	}
	s.pulls.Add(1)
	if r.IntN(3) > 0 {
		s.e.do("DELETE", "/images/"+repo+":1?force=1", nil)
	}
}

// push sends an image that was pulled under a name of its own. What the engine confirms must stay.
func (s *transit) push(r *rand.Rand, n int) {
	i := r.IntN(seeds)
	repo := fmt.Sprintf("%s/seed/img%d", harbour, i)
	to := fmt.Sprintf("copy/c%d", n)
	if ok, err := s.stream("/images/create?fromImage=" + url.QueryEscape(repo) + "&tag=1"); !ok || err != nil {
		time.Sleep(5 * time.Millisecond)
		return
	}
	if code, _, err := s.e.do("POST", "/images/"+repo+":1/tag?repo="+url.QueryEscape(harbour+"/"+to)+"&tag=x", nil); err != nil || code != http.StatusCreated {
		return
	}
	ok, err := s.stream("/images/" + harbour + "/" + to + "/push?tag=x")
	if ok && err == nil {
		s.pushes.Add(1)
		s.mu.Lock()
		s.kept[to+":x"] = s.kept[fmt.Sprintf("seed/img%d:1", i)]
		s.mu.Unlock()
	}
	s.e.do("DELETE", "/images/"+harbour+"/"+to+":x", nil)
}

// pushDirectly sends an image without the engine, and sometimes deletes it: something to collect.
func (s *transit) pushDirectly(r *rand.Rand, n int) {
	img, err := random.Image(50_000, 2)
	if err != nil {
		s.e.t.Error(err)
		return
	}
	to := fmt.Sprintf("direct/d%d:x", n)
	if err := s.h.push(to, img); err != nil {
		time.Sleep(5 * time.Millisecond)
		return
	}
	s.direct.Add(1)
	if r.IntN(2) == 0 {
		s.keep(to, img)
		return
	}
	d, err := img.Digest()
	if err != nil {
		return
	}
	if ref, err := name.NewDigest(harbour + "/" + strings.TrimSuffix(to, ":x") + "@" + d.String()); err == nil {
		_ = remote.Delete(ref, s.h.options()...) // what is left of it may stay
	}
}

func (s *transit) collect(*rand.Rand, int) {
	if s.h.collect("{}") {
		s.collections.Add(1)
	}
	time.Sleep(20 * time.Millisecond)
}

// stream posts a request that answers line by line and tells whether it ended without an error.
func (s *transit) stream(path string) (ok bool, err error) {
	code, b, err := s.e.do("POST", path, nil)
	if err != nil {
		return false, err
	}
	if code != http.StatusOK {
		return false, nil
	}
	for line := range strings.Lines(string(b)) {
		var m struct {
			Status string
			Error  *struct{ Message string } `json:"errorDetail"`
		}
		if json.Unmarshal([]byte(line), &m) != nil || m.Error != nil {
			return false, nil
		}
		ok = ok || strings.HasPrefix(m.Status, "Digest:") || strings.Contains(m.Status, "digest:")
	}
	return ok, nil
}

// engineIsWhole has the engine verify all that it has.
func (s *transit) engineIsWhole() {
	s.e.t.Helper()
	code, b := s.e.berth("POST", "/images/fsck")
	if code != http.StatusOK || !strings.Contains(string(b), `"damaged":0`) {
		s.e.t.Errorf("verifying the engine's images: %d %s", code, b)
	}
}

// engineIsEmpty removes every image and looks at the disk.
func (s *transit) engineIsEmpty() {
	t := s.e.t
	t.Helper()
	var images []struct{ ID string }
	_, b := s.e.insist("GET", "/images/json?all=1", nil)
	if err := json.Unmarshal(b, &images); err != nil {
		t.Fatal(err)
	}
	for _, i := range images {
		if code, b := s.e.insist("DELETE", "/images/"+i.ID+"?force=1", nil); code != http.StatusOK {
			t.Errorf("remove %s: %d %s", i.ID, code, b)
		}
	}
	// A kill may have come between an image and its removal: what it left goes at the next start.
	s.e.kill()
	s.e.start()
	for _, dir := range []string{"blob/sha256", "blob/tmp", "layer/d", "layer/tmp"} {
		awaitEmpty(t, filepath.Join(s.e.dir, "data", "image", dir))
	}
}

// registryIsEmpty deletes what was kept and looks at the disk: not one blob is left.
func (s *transit) registryIsEmpty() {
	t := s.e.t
	t.Helper()
	repos, err := remote.Catalog(context.Background(), must(name.NewRegistry(harbour)), s.h.options()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range repos {
		repo := must(name.NewRepository(harbour + "/" + r))
		tags, err := remote.List(repo, s.h.options()...)
		if err != nil && !strings.Contains(err.Error(), "NAME_UNKNOWN") {
			t.Error(err)
		}
		for _, tag := range tags {
			d, err := remote.Head(repo.Tag(tag), s.h.options()...)
			if err != nil {
				t.Error(err)
				continue
			}
			if err := remote.Delete(repo.Digest(d.Digest.String()), s.h.options()...); err != nil {
				t.Error(err)
			}
		}
	}
	// A push that was killed between its manifest and its tag left a manifest without a name, which stays unless it is asked for.
	time.Sleep(20 * time.Millisecond)
	s.h.collect(`{"untagged": "1ms", "uploads": "1ms", "grace": "1ms"}`)
	left := 0
	filepath.WalkDir(filepath.Join(s.h.dir, "content", "blobs"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			left++
			t.Logf("left: %s", path)
		}
		return nil
	})
	if left > 0 {
		t.Errorf("%d blobs are left in the registry after everything was deleted and collected", left)
	}
}

func awaitEmpty(t *testing.T, dir string) {
	t.Helper()
	var names []os.DirEntry
	if eventually(func() bool { names, _ = os.ReadDir(dir); return len(names) == 0 }) {
		return
	}
	t.Errorf("%d things are left in %s, such as %s", len(names), dir, names[0].Name())
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
