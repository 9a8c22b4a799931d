package retention

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/base/failpoint"
	"berth/registry/storage"
	"berth/registry/storage/dir"
)

// TestChild is no test: it is the process that TestKilledWhileApplying has killed.
func TestChild(t *testing.T) {
	root, plan := os.Getenv("RETENTION_TEST_ROOT"), os.Getenv("RETENTION_TEST_PLAN")
	if root == "" {
		t.Skip("it is run by TestKilledWhileApplying")
	}
	if err := failpoint.Arm(os.Getenv(failpoint.Env)); err != nil {
		t.Fatal(err)
	}
	s, e := openBoth(t, root)
	defer s.Close()
	defer e.Close()
	if _, err := e.Apply(context.Background(), plan); err != nil {
		t.Fatal(err)
	}
}

func openBoth(t *testing.T, root string) (*storage.Store, *Engine) {
	t.Helper()
	d, err := dir.Open(filepath.Join(root, "content"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.Open(t.Context(), d, storage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(Config{Root: filepath.Join(root, "retention"), Storage: s, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return s, e
}

// An application dies at each of its steps in turn. No index may then name what is gone, no tag may lead nowhere, and the
// plan can be applied again until nothing is left of it.
func TestKilledWhileApplying(t *testing.T) {
	root := t.TempDir()
	s, e := openBoth(t, root)
	for i := range 3 {
		var parts []digest.Digest
		for j := range 2 {
			parts = append(parts, put(t, s, fmt.Sprint("part ", i, j), "", nil))
		}
		image := put(t, s, fmt.Sprint("image ", i), "", parts, fmt.Sprint("v", i))
		put(t, s, fmt.Sprint("sbom ", i), string(image), nil)
	}
	if err := e.SetPolicy(Policy{Rules: []Rule{{Repositories: []string{"**"}, Keep: &Keep{Last: 1}, Untagged: age(0)}}}); err != nil {
		t.Fatal(err)
	}
	p, err := e.Plan(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	steps := len(p.Repositories[0].Untag) + len(p.Repositories[0].Delete)
	if steps != 2+8 {
		t.Fatalf("%d steps", steps)
	}
	e.Close()
	s.Close()
	for round := 0; ; round++ {
		if round > steps {
			t.Fatal("it comes to no end")
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestChild$")
		cmd.Env = append(os.Environ(), "RETENTION_TEST_ROOT="+root, "RETENTION_TEST_PLAN="+p.ID, failpoint.Env+"=registry/retention-step=kill:2")
		out, err := cmd.CombinedOutput()
		s, e := openBoth(t, root)
		whole(t, s)
		left := manifests(t, s)
		tags := tagsOf(t, s)
		e.Close()
		s.Close()
		if err == nil {
			if left != 4 || tags != "v2" || round < 5 {
				t.Errorf("after %d deaths: %d manifests, tags %q\n%s", round, left, tags, out)
			}
			return
		}
	}
}

// whole looks whether everything that is named is there.
func whole(t *testing.T, s *storage.Store) {
	t.Helper()
	for m, err := range s.Manifests(t.Context(), "team/web") {
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range m.Manifests {
			if _, err := s.Record(t.Context(), "team/web", string(c.Digest)); err != nil {
				t.Errorf("an index names what is gone: %v", err)
			}
		}
	}
	for tag, err := range s.TagsOf(t.Context(), "team/web") {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Record(t.Context(), "team/web", string(tag.Digest)); err != nil {
			t.Errorf("tag %s leads nowhere: %v", tag.Name, err)
		}
	}
}
