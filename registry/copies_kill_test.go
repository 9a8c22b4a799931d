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
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"berth/base/failpoint"
	"berth/registry/replicate"
	"berth/registry/upstream"
)

const copiesEnv = "BERTH_TEST_REGISTRY_COPIES"

// TestCopiesChild is no test: it is the registry that TestCopiesKilled kills.
func TestCopiesChild(t *testing.T) {
	text := os.Getenv(copiesEnv)
	if text == "" {
		t.Skip("needs another test to start it")
	}
	if err := failpoint.Arm(os.Getenv(failpoint.Env)); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Addr: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	r, err := Open(cfg)
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

// TestCopiesKilled kills a registry again and again that fetches from one registry and replicates to another. In the end what was
// pulled through it can be pulled, what was pushed to it has been replicated, and nothing lies about.
func TestCopiesKilled(t *testing.T) {
	_, far := open(t, Config{Log: slog.New(slog.DiscardHandler)})
	_, target := open(t, Config{Log: slog.New(slog.DiscardHandler)})
	root := t.TempDir()
	text, err := json.Marshal(map[string]any{"Root": root, "Copies": Copies{
		Mirrors:     []upstream.Source{{Name: "far", Registry: "http://" + far, Prefix: "far"}},
		Replication: []replicate.Rule{{Name: "to", Registry: "http://" + target, Repositories: []string{"own/*"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	var theirs, ours []v1.Image
	for i := range 6 {
		for list, at := range map[*[]v1.Image]string{&theirs: far, &ours: ""} {
			im, err := random.Image(200_000, 3)
			if err != nil {
				t.Fatal(err)
			}
			*list = append(*list, im)
			if at != "" {
				if err := remote.Write(tagOf(t, at, "lib/x", i), im); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	acknowledged := map[int]bool{}
	var mu sync.Mutex
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged)
	}
	for round := range 8 {
		point := ""
		if round%4 == 3 {
			point = "registry/replicate-before-queue=kill:1"
		}
		cmd, host := startCopies(t, string(text), point)
		var clients sync.WaitGroup
		for i := range theirs {
			clients.Go(func() {
				if im, err := remote.Image(tagOf(t, host, "far/lib/x", i)); err == nil {
					_ = validate.Image(im) // cut off at any moment
				}
			})
			clients.Go(func() {
				if remote.Write(tagOf(t, host, "own/x", i), ours[i]) == nil {
					mu.Lock()
					acknowledged[i] = true
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond)
		if round == 4 { // on a slow machine none of the other rounds may get so far
			for end := time.Now().Add(time.Minute); count() == 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
		}
		_ = cmd.Process.Kill()
		clients.Wait()
		_ = cmd.Wait()
	}
	cmd, host := startCopies(t, string(text), "")
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for i := range theirs {
		im, err := remote.Image(tagOf(t, host, "far/lib/x", i))
		if err == nil {
			err = validate.Image(im)
		}
		if err != nil {
			t.Errorf("copy %d: %v", i, err)
		}
	}
	if len(acknowledged) == 0 {
		t.Error("no push was acknowledged: this says nothing of replication")
	}
	for i := range acknowledged {
		want, err := ours[i].Digest()
		if err != nil {
			t.Fatal(err)
		}
		var got v1.Hash
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); { // a try that failed is made again after 5, 10, 20 s
			if im, err := remote.Image(tagOf(t, target, "own/x", i)); err == nil {
				got, _ = im.Digest()
			}
			if got == want {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if got != want {
			t.Errorf("image %d was pushed and acknowledged, and is not replicated", i)
		}
	}
	t.Logf("%d of %d pushes were acknowledged", len(acknowledged), len(ours))
	left, err := os.ReadDir(filepath.Join(root, "mirrors"))
	if err != nil || len(left) != 1 {
		t.Errorf("left over: %v %v", left, err)
	}
}

func tagOf(t *testing.T, host, repository string, i int) name.Tag {
	t.Helper()
	n, err := name.NewTag(fmt.Sprintf("%s/%s:%d", host, repository, i))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// startCopies runs the registry as a process of its own and gives its host.
func startCopies(t *testing.T, config, point string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCopiesChild$", "-test.v")
	cmd.Env = append(os.Environ(), copiesEnv+"="+config, failpoint.Env+"="+point)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), "ADDR "); ok {
			go io.Copy(io.Discard, out)
			return cmd, addr
		}
	}
	_ = cmd.Wait()
	t.Fatalf("the registry does not start after a death: %s", errs.String())
	return nil, ""
}
