package registry

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/failpoint"
	"berth/registry/door"
	"berth/registry/gc"
	"berth/registry/storage"
	"berth/registry/storage/s3/s3test"
)

const (
	childEnv        = "BERTH_TEST_REGISTRY_ROOT"
	childStorageEnv = "BERTH_TEST_REGISTRY_STORAGE"
)

// TestChild is no test: it is the registry that the soak test kills.
func TestChild(t *testing.T) {
	root := os.Getenv(childEnv)
	if root == "" {
		t.Skip("needs another test to start it")
	}
	if err := failpoint.Arm(os.Getenv(failpoint.Env)); err != nil {
		t.Fatal(err)
	}
	r, err := Open(Config{Root: root, Addr: "127.0.0.1:0", Storage: os.Getenv(childStorageEnv), Grace: 50 * time.Millisecond, Collect: Collect{Every: door.Duration(5 * time.Millisecond), Untagged: door.Duration(100 * time.Millisecond)}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Listener()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("ADDR", l.Addr())
	r.Serve(context.Background(), l)
}

// rounds is how often the registry is killed.
func rounds() int {
	if n, err := strconv.Atoi(os.Getenv("BERTH_SOAK")); err == nil && n > 0 {
		return n
	}
	return 12
}

// points are where it is killed by itself, in the rounds in which it is not killed from outside.
var points = []string{"registry/before-blob", "registry/before-link", "registry/before-record", "registry/before-tag", "registry/before-unrecord", "registry/before-sweep"}

// TestKilled pushes, mounts, retags and deletes from several clients while garbage is collected all the time, kills the registry at
// any moment, and looks after each death whether everything that was acknowledged is there and whole. In the end nothing may be left
// over.
func TestKilled(t *testing.T) { kill(t, "", rounds()) }

// TestKilledOnObjectStore does the same with content in a bucket.
func TestKilledOnObjectStore(t *testing.T) {
	bucket := s3test.Start(t).Bucket(t)
	t.Setenv("AWS_ACCESS_KEY_ID", bucket.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", bucket.SecretKey)
	kill(t, "s3://"+bucket.Bucket+"?path-style=true&endpoint="+bucket.Endpoint, max(rounds()/4, 3))
}

func kill(t *testing.T, place string, deaths int) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("BERTH_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("BERTH_SEED=%d", seed)
	s := &soak{T: t, root: t.TempDir(), storage: place, rand: rand.New(rand.NewPCG(seed, 0))}
	for i := range 10 {
		s.layers = append(s.layers, bytes.Repeat([]byte{byte('a' + i)}, 100+s.rand.IntN(60_000)))
	}
	for i := range 4 {
		s.clients = append(s.clients, &soakClient{soak: s, number: i, rand: rand.New(rand.NewPCG(seed, uint64(i+1))), tags: map[string]*state{}})
	}
	for round := range deaths {
		s.round(round, round == deaths-1)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	s.finish()
	var pushed, refused int
	for _, c := range s.clients {
		pushed, refused = pushed+c.pushed, refused+c.refused
	}
	t.Logf("%d deaths, %d images pushed, %d pushes told to upload again", deaths, pushed, refused)
	if pushed < deaths/2 { // in a third of the rounds it dies by a point of its own, perhaps at once
		t.Errorf("only %d images were pushed: this says nothing", pushed)
	}
}

type soak struct {
	*testing.T
	root    string
	storage string // "": below root
	rand    *rand.Rand
	layers  [][]byte
	clients []*soakClient
	url     string
	errs    bytes.Buffer // what the registry wrote before it died

	acknowledged atomic.Int64 // pushes
}

// start runs the registry as a process of its own.
func (s *soak) start(point string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+s.root, childStorageEnv+"="+s.storage, failpoint.Env+"="+point)
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	s.errs.Reset()
	cmd.Stderr = &s.errs
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), "ADDR "); ok {
			s.url = "http://" + addr
			go io.Copy(io.Discard, out)
			return cmd
		}
	}
	cmd.Wait()
	s.Fatalf("the registry does not start after a death: %s", s.errs.String())
	return nil
}

func (s *soak) round(n int, last bool) {
	point, wait := "", time.Duration(20+s.rand.IntN(400))*time.Millisecond
	if n%3 == 2 {
		point, wait = fmt.Sprintf("%s=kill:%d", points[s.rand.IntN(len(points))], 1+s.rand.IntN(30)), 2*time.Second
	}
	cmd, before := s.start(point), s.acknowledged.Load()
	if n%5 == 0 || last {
		for _, c := range s.clients {
			c.verify()
		}
	}
	ctx, cancel := context.WithCancel(s.Context())
	died := make(chan struct{})
	go func() { cmd.Wait(); close(died) }()
	var wg sync.WaitGroup
	for _, c := range s.clients {
		wg.Go(func() {
			for ctx.Err() == nil && !s.Failed() && c.act() {
			}
		})
	}
	select {
	case <-died:
	case <-time.After(wait):
		// On a slow machine the clients need longer to get anywhere.
		for end := time.Now().Add(time.Minute); s.acknowledged.Load() == before && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		cmd.Process.Kill()
		<-died
	}
	cancel()
	wg.Wait()
	http.DefaultClient.CloseIdleConnections()
	if text := s.errs.String(); strings.Contains(text, "panic") || strings.Contains(text, "DATA RACE") {
		s.Errorf("the registry writes\n%s", text)
	}
}

// finish collects everything and compares what is left with what the manifests name.
func (s *soak) finish() {
	r, err := Open(Config{Root: s.root, Storage: s.storage, Collect: Collect{Every: -1}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	ctx, store := s.Context(), r.Store()
	check := func() {
		c, err := store.Check(ctx, storage.Look{Content: true})
		if err != nil {
			s.Fatal(err)
		}
		for _, p := range c.Problems {
			s.Error(p)
		}
	}
	check()
	if s.storage != "" {
		time.Sleep(2 * time.Second) // object stores tell times in whole seconds: what was written in this one counts as young
	}
	if _, err := gc.Run(ctx, store, gc.Policy{Uploads: time.Nanosecond}); err != nil {
		s.Fatal(err)
	}
	check()
	wanted := map[digest.Digest]bool{}
	names, _ := store.Repositories(ctx, "")
	for _, name := range names {
		for m, err := range store.Manifests(ctx, name) {
			if err != nil {
				s.Fatal(err)
			}
			wanted[m.Digest] = true
			for _, b := range m.Blobs {
				wanted[b.Digest] = true
			}
		}
	}
	c, err := store.BeginCollection(0)
	if err != nil {
		s.Fatal(err)
	}
	defer c.End()
	for b, err := range c.Blobs(ctx) {
		if err != nil {
			s.Fatal(err)
		}
		if !wanted[b.Digest] {
			s.Errorf("leaked: blob %s", b.Digest)
		}
	}
	for u, err := range store.Uploads(ctx) {
		s.Errorf("leaked: %+v %v", u, err)
	}
	if s.storage != "" {
		return
	}
	for _, dir := range []string{"tmp", "uploads"} {
		left, err := os.ReadDir(filepath.Join(s.root, "content", dir))
		if err != nil {
			s.Fatal(err)
		}
		for _, f := range left {
			s.Errorf("leaked: %s/%s", dir, f.Name())
		}
	}
}

// state is what a client knows of one of its tags: what was acknowledged, and what was asked for when the registry died.
type state struct {
	now   digest.Digest // "": deleted, or never there
	maybe []digest.Digest
}

// soakClient pushes to its own tags, in a repository of its own and in one that all share.
type soakClient struct {
	*soak
	number, made    int
	pushed, refused int
	rand            *rand.Rand
	tags            map[string]*state // by "repository tag"
}

// do makes a request; false when the registry is gone.
func (c *soakClient) do(method, path string, body []byte, header ...string) (int, []byte, http.Header, bool) {
	if !strings.HasPrefix(path, "http") {
		path = c.url + path
	}
	req, err := http.NewRequest(method, path, bytes.NewReader(body))
	if err != nil {
		c.Error(err)
		return 0, nil, nil, false
	}
	for _, h := range header {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, nil, false
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, nil, false
	}
	if resp.StatusCode >= 500 {
		c.Errorf("%s %s: %s %s", method, path, resp.Status, data)
	}
	return resp.StatusCode, data, resp.Header, true
}

// act does one thing to one tag. False when the registry is gone.
func (c *soakClient) act() bool {
	repo := []string{"soak/shared", fmt.Sprintf("soak/of/%d", c.number)}[c.rand.IntN(2)]
	tag := fmt.Sprintf("c%d-%d", c.number, c.rand.IntN(4))
	st := c.tags[repo+" "+tag]
	if st == nil {
		st = &state{}
		c.tags[repo+" "+tag] = st
	}
	switch {
	case st.now != "" && len(st.maybe) == 0 && c.rand.IntN(4) == 0:
		d := st.now
		st.maybe = append(st.maybe, "")
		status, body, _, ok := c.do("DELETE", "/v2/"+repo+"/manifests/"+d.String(), nil)
		if !ok {
			return false
		}
		if status != 202 {
			c.Errorf("DELETE %s@%s: %d %s", repo, d, status, body)
		}
		*st = state{}
		return true
	default:
		return c.push(repo, tag, st)
	}
}

// push pushes a new image to a tag, again from the beginning when the registry asks for it.
func (c *soakClient) push(repo, tag string, st *state) bool {
	c.made++
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Annotations: map[string]string{"n": fmt.Sprint(c.number, c.made)}}
	m.SchemaVersion = 2
	var blobs [][]byte
	for i := range 3 {
		b := c.layers[c.rand.IntN(len(c.layers))]
		if i == 2 && c.rand.IntN(2) == 0 { // one that becomes garbage when the tag moves on
			b = fmt.Appendf(nil, "%d %d %s", c.number, c.made, b[:100])
		}
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(b), Size: int64(len(b))}
		blobs = append(blobs, b)
		if i == 0 {
			m.Config = d
		} else {
			m.Layers = append(m.Layers, d)
		}
	}
	content, _ := json.Marshal(m)
	d := digest.FromBytes(content)
	st.maybe = append(st.maybe, d)
	for range 50 {
		for _, b := range blobs {
			if !c.blob(repo, b) {
				return false
			}
		}
		status, body, _, ok := c.do("PUT", "/v2/"+repo+"/manifests/"+tag, content, "Content-Type: "+m.MediaType)
		switch {
		case !ok:
			return false
		case status == 201:
			*st = state{now: d}
			c.pushed++
			c.acknowledged.Add(1)
			return true
		case status == 404 && bytes.Contains(body, []byte("MANIFEST_BLOB_UNKNOWN")):
			c.refused++ // longer than the grace went by, or the registry died between
		default:
			c.Errorf("PUT %s:%s: %d %s", repo, tag, status, body)
			return false
		}
	}
	c.Errorf("%s:%s: the registry asks for uploads again and again", repo, tag)
	return false
}

// blob brings a blob to a repository in one of the ways that there are.
func (c *soakClient) blob(repo string, content []byte) bool {
	d := digest.FromBytes(content).String()
	status, _, _, ok := c.do("HEAD", "/v2/"+repo+"/blobs/"+d, nil)
	if !ok || status == 200 {
		return ok
	}
	query := ""
	switch c.rand.IntN(3) {
	case 0:
		status, body, _, ok := c.do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+d, content)
		if ok && status != 201 {
			c.Errorf("POST: %d %s", status, body)
		}
		return ok
	case 1:
		query = "?mount=" + d
	}
	status, body, h, ok := c.do("POST", "/v2/"+repo+"/blobs/uploads/"+query, nil)
	if !ok || status == 201 {
		return ok
	}
	if status != 202 {
		c.Errorf("POST: %d %s", status, body)
	}
	u := c.url + h.Get("Location")
	half := len(content) / 2
	if status, body, _, ok = c.do("PATCH", u, content[:half]); !ok {
		return false
	}
	if status != 202 {
		c.Errorf("PATCH: %d %s", status, body)
	}
	status, body, _, ok = c.do("PUT", u+"?digest="+d, content[half:])
	if ok && status != 201 {
		c.Errorf("PUT: %d %s", status, body)
	}
	return ok
}

// verify looks at every tag: it stands for what was acknowledged, or for what was under way, and that is whole.
func (c *soakClient) verify() {
	for name, st := range c.tags {
		repo, tag, _ := strings.Cut(name, " ")
		status, body, _, ok := c.do("GET", "/v2/"+repo+"/manifests/"+tag, nil)
		if !ok {
			return // it was killed by its point
		}
		got := digest.Digest("")
		if status == 200 {
			got = digest.FromBytes(body)
		}
		allowed := got == st.now
		for _, d := range st.maybe {
			allowed = allowed || got == d
		}
		if !allowed {
			c.Errorf("%s:%s is %q (%d), acknowledged was %q, under way %q", repo, tag, got, status, st.now, st.maybe)
		}
		*st = state{now: got}
		if status != 200 {
			continue
		}
		var m ocispec.Manifest
		if err := json.Unmarshal(body, &m); err != nil {
			c.Errorf("%s:%s: %v", repo, tag, err)
		}
		for _, d := range append(m.Layers, m.Config) {
			status, body, _, ok := c.do("GET", "/v2/"+repo+"/blobs/"+d.Digest.String(), nil)
			if !ok {
				return
			}
			if status != 200 || digest.FromBytes(body) != d.Digest {
				c.Errorf("%s:%s: blob %s: %d, %d bytes", repo, tag, d.Digest, status, len(body))
			}
		}
	}
}
