package conform

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/test/conform/swagger"
	"berth/test/live"
)

var (
	against = flag.String("against", "", "ask the engine at this `socket` instead of one of ours, and compare nothing with what is known")
	which   = flag.String("versions", "", "ask these versions only, as `numbers` after the point with commas between")
	only    = flag.String("only", "", "operations with this `text` in their name only")
)

// atOnce versions are asked at a time: most of a request's life is waiting.
const atOnce = 6

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", fmt.Sprint(atOnce)) // it is a flag of every test program
	os.Exit(m.Run())
}

// A finding is a deviation of one operation, and the versions that have it.
type finding struct {
	op, text string
	versions []int
	example  string // a request and its answer
}

// findings collects what all versions found.
type findings struct {
	mu    sync.Mutex
	all   map[string]*finding
	asked int

	prunes sync.Mutex
}

func (f *findings) add(op string, minor int, text, example string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := op + " " + text
	if f.all[key] == nil {
		f.all[key] = &finding{op: op, text: text, example: example}
	}
	if one := f.all[key]; !slices.Contains(one.versions, minor) {
		one.versions = append(one.versions, minor)
	}
}

// Every operation of every document is asked, and answers as the document says, but for what is known.
func TestEveryOperationOfEveryVersion(t *testing.T) {
	dir, err := swagger.Dir()
	if err != nil {
		t.Skipf("needs the swagger documents of moby's API module: %v", err)
	}
	client, registry := subject(t)
	found := &findings{all: map[string]*finding{}}
	t.Run("version", func(t *testing.T) {
		for _, minor := range versions(t) {
			t.Run(fmt.Sprintf("1.%d", minor), func(t *testing.T) {
				t.Parallel()
				d, err := swagger.Read(dir, minor)
				if err != nil {
					t.Fatal(err)
				}
				s := newStage(client, minor)
				defer s.close()
				askAll(t, s, d, found, registry)
			})
		}
	})
	report(t, found)
}

// versions gives those that are asked.
func versions(t *testing.T) (out []int) {
	t.Helper()
	for _, word := range strings.FieldsFunc(*which, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(word)
		if err != nil {
			t.Fatalf("-versions: %v", err)
		}
		out = append(out, n)
	}
	for minor := swagger.Oldest; *which == "" && minor <= swagger.Newest; minor++ {
		out = append(out, minor)
	}
	return out
}

// subject gives the engine that is asked, and whether a registry stands beside it.
func subject(t *testing.T) (client *http.Client, registry bool) {
	t.Helper()
	if *against != "" {
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", *against)
		}}}
		furnish(t, newStage(client, 41))
		return client, false
	}
	if lacks := live.Lacks(); lacks != "" {
		t.Skip(lacks)
	}
	bin := t.TempDir()
	if err := live.Build(bin, "berthd", "berth-keeper", "berth-init"); err != nil {
		t.Fatal(err)
	}
	e, err := live.Start(bin, "--insecure-registry", registryAddr)
	if err != nil {
		t.Fatal(err)
	}
	server := exec.Command(filepath.Join(bin, "berthd"), "registry", "serve", "--addr", registryAddr, "--root", t.TempDir())
	server.Stdout, server.Stderr = os.Stderr, os.Stderr
	log, err := os.Create(filepath.Join(t.TempDir(), "registry.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	server.Stdout, server.Stderr = log, log
	if err := e.World.Start(server); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill() // it is a child of this process
		_ = server.Wait()
		if t.Failed() {
			t.Logf("berthd's log ends with:\n%s", e.Log())
		}
		if err := e.Stop(); err != nil {
			t.Errorf("stop the engine: %v", err)
		}
	})
	s := newStage(e.HTTP, 41)
	furnish(t, s)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err = s.call("GET", "/distribution/"+registryAddr+"/nothing:one/json", nil); err != nil && !strings.Contains(err.Error(), "refused") {
			break // it says that there is nothing
		}
		if time.Now().After(deadline) {
			t.Fatalf("the registry does not answer: %v", err)
		}
	}
	for _, step := range []struct{ method, path string }{
		{"POST", "/images/box/tag?repo=" + registryAddr + "/box&tag=one"}, {"POST", "/images/" + registryAddr + "/box/push?tag=one"}, {"POST", "/plugins/" + s.plugin(registryAddr+"/plug:one") + "/push"},
	} {
		if _, err := s.call(step.method, step.path, nil); err != nil {
			t.Fatal(err)
		}
	}
	return e.HTTP, true
}

// furnish imports the images that all versions share.
func furnish(t *testing.T, s *stage) {
	t.Helper()
	box, err := live.BoxTar()
	if err != nil {
		t.Skipf("needs the swagger documents of moby's API module: %v", err)
	}
	for name, data := range map[string][]byte{"box": box, "tiny": archives()["file"]} {
		if _, err := s.call("POST", "/images/create?fromSrc=-&repo="+name+"&changes=CMD%20%5B%22sh%22%5D", bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
}

// askAll asks one version's document through.
func askAll(t *testing.T, s *stage, d *swagger.Document, found *findings, registry bool) {
	for i := range d.Operations {
		op := &d.Operations[i]
		if op.Tag != "" && !rooms[op.Tag] && !cluster[op.Tag] {
			t.Errorf("the room %q of %s is new: say in ask_test.go how it is asked", op.Tag, op.Key())
		}
		if *only != "" && !strings.Contains(op.Key(), *only) {
			continue
		}
		list := requests(op, d.Minor)
		if len(list) == 0 && unasked[op.Key()] == "" {
			t.Errorf("%s of 1.%d: there is no request for it in ask_test.go", op.Key(), d.Minor)
		}
		for _, a := range list {
			if needs := a.url + a.body; !registry && (strings.Contains(needs, "$registry") || strings.Contains(needs, "$pluginremote") || strings.Contains(needs, "$pluginpushed") || strings.Contains(needs, "$pushed") || strings.Contains(needs, "127.0.0.1:5000")) {
				continue
			}
			askOne(t, s, d, op, a, found)
		}
	}
}

// askOne sends one request and judges the answer.
func askOne(t *testing.T, s *stage, d *swagger.Document, op *swagger.Operation, a ask, found *findings) {
	defer func() {
		if e := recover(); e != nil {
			b, ok := e.(broken)
			if !ok {
				panic(e)
			}
			t.Errorf("the stage for %s (1.%d): %v", a.url, d.Minor, b.error)
		}
	}()
	gentle := op.Method == http.MethodGet || op.Method == http.MethodHead || a.want >= 400
	target, body := s.expand(a.url, gentle), s.expand(a.body, gentle)
	if strings.HasSuffix(op.Path, "/prune") { // a second one at the same time is refused
		found.prunes.Lock()
		defer found.prunes.Unlock()
		defer s.forget()
	}
	got, err := send(s, op.Method, target, body, a)
	example := fmt.Sprintf("%s %s %s", op.Method, target, clip(body, 200))
	if err != nil {
		found.add(op.Key(), d.Minor, "no answer: "+err.Error(), example)
		return
	}
	found.mu.Lock()
	found.asked++
	found.mu.Unlock()
	example += " → " + clip(string(got.body), 300)
	say := func(format string, args ...any) { found.add(op.Key(), d.Minor, fmt.Sprintf(format, args...), example) }
	if got.code != a.want {
		say("%d instead of %d: %s", got.code, a.want, situation(a))
		return
	}
	for _, text := range judge(d, op, got, a) {
		say("%s", text)
	}
}

// situation names what a request is about without what differs between versions.
func situation(a ask) string {
	text := a.url
	if a.body != "" {
		text += " " + clip(a.body, 60)
	}
	if a.note != "" {
		text += " (" + a.note + ")"
	}
	return text
}

func clip(s string, n int) string {
	if s = strings.TrimSpace(s); len(s) > n {
		return s[:n] + "…"
	}
	return s
}

type answer struct {
	code  int
	media string
	body  []byte
}

func send(s *stage, method, target, body string, a ask) (*answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	path, query, _ := strings.Cut(target, "?")
	u := &url.URL{Scheme: "http", Host: "engine", Path: fmt.Sprintf("/v1.%d%s", s.minor, path), RawQuery: escaped(query)}
	var content io.Reader
	kind := ""
	if name, ok := strings.CutPrefix(body, "tar:"); ok {
		content, kind = bytes.NewReader(archives()[name]), "application/x-tar"
	} else if body != "" {
		content, kind = strings.NewReader(body), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return nil, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for line := range strings.Lines(a.head) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		req.Header.Set(name, value)
	}
	if req.Header.Get("Upgrade") != "" {
		req.Header.Set("Connection", "Upgrade")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	got := &answer{code: resp.StatusCode, media: resp.Header.Get("Content-Type")}
	switch {
	case resp.StatusCode == http.StatusSwitchingProtocols:
		return got, nil
	case a.stream && resp.StatusCode == http.StatusOK:
		got.body, err = bufio.NewReader(resp.Body).ReadBytes('\n')
	default:
		got.body, err = io.ReadAll(resp.Body)
	}
	return got, err
}

// escaped makes a query of one that is written as people read it, with JSON in it.
func escaped(query string) string {
	return strings.NewReplacer(`"`, "%22", "{", "%7B", "}", "%7D", "[", "%5B", "]", "%5D", " ", "%20", "+", "%2B").Replace(query)
}

// judge says what of an answer with the right code is not as the document has it.
func judge(d *swagger.Document, op *swagger.Operation, got *answer, a ask) []string {
	var out []string
	listed := slices.Contains(op.Codes, got.code)
	// The documents list 400 for few operations, and say of all that the standard codes of HTTP hold.
	if !listed && got.code != http.StatusBadRequest {
		out = append(out, fmt.Sprintf("%d is not listed", got.code))
	}
	schema := op.Schema(got.code)
	switch {
	case got.code >= 400 && op.Method == http.MethodHead:
	case got.code >= 400:
		if schema == nil {
			schema = map[string]any{"type": "object", "required": []any{"message"}, "properties": map[string]any{"message": map[string]any{"type": "string"}}}
		}
		for _, f := range d.Check(schema, got.body) {
			out = append(out, fmt.Sprintf("%d%s", got.code, f))
		}
	case got.code == http.StatusNoContent || got.code == http.StatusNotModified || op.Method == http.MethodHead:
		if len(got.body) > 0 {
			out = append(out, fmt.Sprintf("%d has a body", got.code))
		}
	case got.code < 300:
		out = append(out, judgeMedia(op, got)...)
		if schema == nil || !strings.HasPrefix(got.media, "application/json") {
			break
		}
		for line := range bytes.Lines(got.body) {
			for _, f := range d.Check(schema, line) {
				out = append(out, fmt.Sprintf("%d%s", got.code, f))
			}
		}
	}
	return out
}

func judgeMedia(op *swagger.Operation, got *answer) []string {
	kind, _, _ := strings.Cut(got.media, ";")
	if len(got.body) == 0 || len(op.Produces) == 0 || slices.Contains(op.Produces, strings.TrimSpace(kind)) {
		return nil
	}
	return []string{fmt.Sprintf("%d is %q, listed are %q", got.code, kind, op.Produces)}
}

func sha256Of(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// report says what is new, and what is known and did not occur.
func report(t *testing.T, found *findings) {
	t.Logf("%d requests", found.asked)
	keys := make([]string, 0, len(found.all))
	for k := range found.all {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	seen := make([]map[int]bool, len(known))
	for _, k := range keys {
		f := found.all[k]
		var rest []int
		for _, v := range f.versions {
			explained := false
			for i := range known {
				if known[i].covers(f, v) {
					if seen[i] == nil {
						seen[i] = map[int]bool{}
					}
					seen[i][v], explained = true, true
				}
			}
			if !explained || *against != "" {
				rest = append(rest, v)
			}
		}
		if len(rest) > 0 {
			t.Errorf("%s: %s\n\tin %s\n\t%s", f.op, f.text, spans(rest), f.example)
		}
	}
	if *against != "" || *only != "" {
		return
	}
	for i, d := range known {
		var gone []int
		for _, v := range versions(t) {
			if v >= d.from && v <= d.to && !seen[i][v] {
				gone = append(gone, v)
			}
		}
		if len(gone) > 0 {
			t.Errorf("known_test.go has what does not occur any more in %s: %s %s", spans(gone), d.op, d.text)
		}
	}
}

// spans writes versions as "1.25–1.40, 1.44".
func spans(versions []int) string {
	sort.Ints(versions)
	var out []string
	for i := 0; i < len(versions); {
		j := i
		for j+1 < len(versions) && versions[j+1] == versions[j]+1 {
			j++
		}
		if text := fmt.Sprintf("1.%d", versions[i]); i == j {
			out = append(out, text)
		} else {
			out = append(out, fmt.Sprintf("%s–1.%d", text, versions[j]))
		}
		i = j + 1
	}
	return strings.Join(out, ", ")
}
