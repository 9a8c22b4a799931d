package image

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// docker runs the docker client against a real engine, whose address is in BERTH_TEST_DOCKER (unix:///…).
func docker(t *testing.T, stdin io.Reader, args ...string) []byte {
	t.Helper()
	host := os.Getenv("BERTH_TEST_DOCKER")
	if host == "" {
		t.Skip("needs a Docker engine: BERTH_TEST_DOCKER=unix:///…")
	}
	cmd := exec.Command("docker", append([]string{"-H", host}, args...)...)
	cmd.Stdin = stdin
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// What Docker saves is loaded here, what is saved here is loaded by Docker, and is the same image to both.
func TestInteropDocker(t *testing.T) {
	h := open(t)
	tag := fmt.Sprintf("berth-test-%d", os.Getpid())
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs /bin/busybox (package busybox-static)")
	}
	base := tarOf(t, "bin/", "", "bin/busybox", string(busybox), "bin/sh", "-> busybox", "gone", "x", "dir/", "", "dir/old", "x")
	docker(t, bytes.NewReader(base), "import", "--change", `CMD ["/bin/sh"]`, "-", tag+":base")
	t.Cleanup(func() { docker(t, nil, "rmi", "-f", tag+":base", tag+":made", tag+":back") })
	// A second layer with whiteouts, made by Docker's own overlay.
	name := tag + "-c"
	docker(t, nil, "create", "--name", name, tag+":base", "/bin/busybox", "true")
	t.Cleanup(func() { docker(t, nil, "rm", "-f", name) })
	docker(t, bytes.NewReader(tarOf(t, "added", "by cp")), "cp", "-", name+":/")
	docker(t, nil, "commit", "-m", "made by docker", name, tag+":made")
	saved := docker(t, nil, "save", tag+":base", tag+":made")

	messages := h.load(saved)
	slices.Sort(messages) // Docker saves several images in no order
	same(t, "messages", messages, []string{"Loaded image: " + tag + ":base", "Loaded image: " + tag + ":made"})
	for _, n := range []string{tag + ":base", tag + ":made"} {
		want := strings.TrimSpace(string(docker(t, nil, "image", "inspect", "-f", "{{.Id}} {{.Size}} {{json .RootFS.Layers}}", n)))
		img, err := h.Resolve(n)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s %d %s", img.ID, img.Size, toJSON(t, img.Layers)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", n, got, want)
		}
	}
	for _, f := range []string{"added=by cp", "dir/old=x", "gone=x"} {
		if !strings.Contains(strings.Join(h.files(tag+":made"), "\n"), f) {
			t.Errorf("%s is missing", f)
		}
	}
	// And back, under another name.
	made, _ := h.Resolve(tag + ":made")
	if err := h.Tag(made.ID, tag+":back"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := h.Save(ctx, &out, []string{tag + ":back"}, nil); err != nil {
		t.Fatal(err)
	}
	docker(t, nil, "rmi", "-f", tag+":made")
	if got := string(docker(t, bytes.NewReader(out.Bytes()), "load")); !strings.Contains(got, "Loaded image: "+tag+":back") {
		t.Errorf("docker load: %s", got)
	}
	if got := strings.TrimSpace(string(docker(t, nil, "image", "inspect", "-f", "{{.Id}}", tag+":back"))); got != made.ID {
		t.Errorf("docker has %s, we %s", got, made.ID)
	}
	if got := string(docker(t, nil, "run", "--rm", "--network", "none", tag+":back", "/bin/busybox", "cat", "/added")); got != "by cp" {
		t.Errorf("in the container: %q", got)
	}
}

// The same with skopeo, in all the archives it writes and reads. BERTH_TEST_SKOPEO may say how to run it.
func TestInteropSkopeo(t *testing.T) {
	words := strings.Fields(os.Getenv("BERTH_TEST_SKOPEO"))
	if len(words) == 0 {
		if _, err := exec.LookPath("skopeo"); err != nil {
			t.Skip("needs skopeo, or BERTH_TEST_SKOPEO")
		}
		words = []string{"skopeo"}
	}
	skopeo := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(words[0], append(append(words[1:len(words):len(words)], "--insecure-policy"), args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	dir, err := os.MkdirTemp("/tmp", "berth-test-") // a place that skopeo sees too when it runs in a root of its own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := open(t)
	s := makeSample(t, nil, tarOf(t, "bin/", "", "bin/sh", strings.Repeat("shell", 1000), "gone", "x"), tarOf(t, "bin/ls", "list", ".wh.gone", ""))
	h.load(s.dockerArchive(t, "app:1"))
	ours := filepath.Join(dir, "ours.tar")
	f, err := os.Create(ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Save(ctx, f, []string{"app:1"}, nil); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, from := range []string{"docker-archive:" + ours, "oci-archive:" + ours} {
		if got := skopeo("inspect", "--config", "--raw", from); digest.FromString(got) != digest.Digest(s.id()) {
			t.Errorf("%s: config %s", from, got)
		}
		for _, c := range [][]string{
			{"docker-archive:" + dir + "/%s:app:2"}, {"oci-archive:" + dir + "/%s:app:2"},
			{"--dest-compress-format", "zstd", "oci-archive:" + dir + "/%s:app:2"}, {"--dest-compress-format", "gzip", "oci-archive:" + dir + "/%s:app:2"},
		} {
			theirs := fmt.Sprintf("theirs-%d.tar", len(from)*100+len(strings.Join(c, " ")))
			args := append([]string{"copy"}, c[:len(c)-1]...)
			skopeo(append(args, from, fmt.Sprintf(c[len(c)-1], theirs))...)
			b, err := os.ReadFile(filepath.Join(dir, theirs))
			if err != nil {
				t.Fatal(err)
			}
			os.Remove(filepath.Join(dir, theirs))
			other := open(t)
			same(t, fmt.Sprint(c), other.load(b), []string{"Loaded image: app:2"})
			same(t, fmt.Sprint(c), other.files("app:2"), []string{"bin/ls=list", "bin/sh=" + strings.Repeat("shell", 1000)})
		}
	}
}
