package registry

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// debianRegistry starts Debian's docker-registry and gives its HOST:PORT.
func debianRegistry(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("needs docker-registry")
	}
	for {
		addr, log, ok := startDebianRegistry(t, path)
		if ok {
			return addr
		}
		if !strings.Contains(log, "address already in use") { // somebody else got the port that was free a moment ago
			t.Fatalf("docker-registry does not answer: %s", log)
		}
	}
}

// startDebianRegistry starts docker-registry on a port that is free, which it cannot find by itself, and waits until it answers or ends.
func startDebianRegistry(t *testing.T, path string) (addr, log string, ok bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/data}, delete: {enabled: true}}\nhttp: {addr: %s}\n", dir, addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "serve", config)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	stop := func() { _ = cmd.Process.Kill(); <-ended }
	t.Cleanup(stop)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if r, err := http.Get("http://" + addr + "/v2/"); err == nil {
			r.Body.Close()
			select {
			case <-ended: // it was somebody else who answered
				return "", out.String(), false
			default:
				return addr, "", true
			}
		}
		select {
		case <-ended:
			return "", out.String(), false
		case <-time.After(20 * time.Millisecond):
		}
	}
	stop()
	return "", "it is silent for a minute: " + out.String(), false
}

// tool runs a program in a home of its own and gives what it prints.
type tool struct {
	*testing.T
	path string
	env  []string
}

func need(t *testing.T, program string) *tool {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skip("needs " + program)
	}
	return &tool{T: t, path: path, env: append(os.Environ(), "HOME="+t.TempDir(), "XDG_RUNTIME_DIR="+t.TempDir())}
}

func (x *tool) run(args ...string) string {
	x.Helper()
	cmd := exec.CommandContext(x.Context(), x.path, args...)
	cmd.Env = x.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		x.Fatalf("%s %s: %v\n%s%s", filepath.Base(x.path), strings.Join(args, " "), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String())
}

func tag(t *testing.T, s string) name.Tag {
	t.Helper()
	n, err := name.NewTag(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// pushIndex pushes an index of three images and gives its digest.
func pushIndex(t *testing.T, to string) string {
	t.Helper()
	i, err := random.Index(50_000, 3, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag(t, to), i); err != nil {
		t.Fatal(err)
	}
	d, err := i.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func digestOf(t *testing.T, ref string) string {
	t.Helper()
	d, err := remote.Head(tag(t, ref))
	if err != nil {
		t.Fatal(err)
	}
	return d.Digest.String()
}

func same(t *testing.T, want string, refs ...string) {
	t.Helper()
	for _, r := range refs {
		if got := digestOf(t, r); got != want {
			t.Errorf("%s is %s, want %s", r, got, want)
		}
	}
}

func TestCrane(t *testing.T) {
	theirs := debianRegistry(t)
	_, ours := open(t, Config{})
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs go, to build crane")
	}
	crane := filepath.Join(t.TempDir(), "crane")
	if out, err := exec.Command("go", "build", "-o", crane, "github.com/google/go-containerregistry/cmd/crane").CombinedOutput(); err != nil {
		t.Skipf("needs crane: it cannot be built: %v\n%s", err, out)
	}
	c := &tool{T: t, path: crane, env: append(os.Environ(), "HOME="+t.TempDir())}
	d := pushIndex(t, ours+"/team/index:1")
	c.run("validate", "--remote", ours+"/team/index:1")
	c.run("copy", ours+"/team/index:1", theirs+"/copy/index:1")
	c.run("copy", theirs+"/copy/index:1", ours+"/back/index:1")
	c.run("validate", "--remote", ours+"/back/index:1")
	same(t, d, theirs+"/copy/index:1", ours+"/back/index:1")
	c.run("tag", ours+"/back/index:1", "2")
	if got := c.run("ls", ours+"/back/index"); got != "1\n2" {
		t.Errorf("tags %q", got)
	}
	if got := c.run("catalog", ours); got != "back/index\nteam/index" {
		t.Errorf("repositories %q", got)
	}
	tar := filepath.Join(t.TempDir(), "image.tar")
	c.run("pull", "--platform", "all", "--format", "oci", ours+"/back/index:1", tar)
	c.run("push", tar, ours+"/pushed:1", "--index") // the layout's own index, around ours
	c.run("validate", "--remote", ours+"/pushed:1")
	c.run("delete", ours+"/back/index:2")
	if got := c.run("ls", ours+"/back/index"); got != "1" {
		t.Errorf("tags after one was deleted: %q", got)
	}
}

func TestSkopeo(t *testing.T) {
	theirs := debianRegistry(t)
	_, ours := open(t, Config{})
	s := need(t, "skopeo")
	d := pushIndex(t, ours+"/team/index:1")
	copies := func(from, to string) {
		t.Helper()
		s.run("--insecure-policy", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", from, to)
	}
	copies("docker://"+ours+"/team/index:1", "docker://"+theirs+"/copy/index:1")
	copies("docker://"+theirs+"/copy/index:1", "docker://"+ours+"/back/index:1")
	copies("docker://"+ours+"/back/index:1", "docker://"+ours+"/mounted/index:1")
	same(t, d, theirs+"/copy/index:1", ours+"/back/index:1", ours+"/mounted/index:1")
	dir := "dir:" + t.TempDir()
	copies("docker://"+ours+"/back/index:1", dir)
	copies(dir, "docker://"+ours+"/layout/index:1")
	same(t, d, ours+"/layout/index:1")
	if got := s.run("list-tags", "--tls-verify=false", "docker://"+ours+"/back/index"); !strings.Contains(got, `"1"`) {
		t.Errorf("tags %s", got)
	}
	s.run("delete", "--tls-verify=false", "docker://"+ours+"/layout/index:1")
	if _, err := remote.Head(tag(t, ours+"/layout/index:1")); err == nil {
		t.Error("it is there after delete")
	}
}

func TestOras(t *testing.T) {
	theirs := debianRegistry(t)
	_, ours := open(t, Config{})
	o := need(t, "oras")
	file := filepath.Join(t.TempDir(), "hello.txt")
	if err := os.WriteFile(file, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	push := []string{"--plain-http", "--disable-path-validation"}
	o.run(append([]string{"push", ours + "/art:1", file + ":text/plain", "--artifact-type", "application/vnd.example.art"}, push...)...)
	o.run(append([]string{"attach", ours + "/art:1", file + ":text/plain", "--artifact-type", "application/vnd.example.signature"}, push...)...)
	if got := o.run("discover", "--plain-http", ours+"/art:1"); !strings.Contains(got, "application/vnd.example.signature") {
		t.Errorf("discover gives %s", got)
	}
	d := digestOf(t, ours+"/art:1")
	o.run("copy", "-r", "--from-plain-http", "--to-plain-http", ours+"/art:1", theirs+"/art:1")
	o.run("copy", "-r", "--from-plain-http", "--to-plain-http", theirs+"/art:1", ours+"/back:1")
	same(t, d, theirs+"/art:1", ours+"/back:1")
	if got := o.run("discover", "--plain-http", ours+"/back:1"); !strings.Contains(got, "application/vnd.example.signature") {
		t.Errorf("discover gives %s after the copy", got)
	}
	out := t.TempDir()
	o.run("pull", "--plain-http", "-o", out, "--allow-path-traversal", ours+"/back:1")
	o.run("repo", "tags", "--plain-http", ours+"/back")
	o.run("repo", "ls", "--plain-http", ours)
	o.run("blob", "push", "--plain-http", ours+"/blob", file)
	o.run("manifest", "delete", "--plain-http", "-f", ours+"/back:1")
}

func TestPodman(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for podman's storage")
	}
	theirs := debianRegistry(t)
	_, ours := open(t, Config{})
	p := need(t, "podman")
	root := t.TempDir()
	podman := func(args ...string) string {
		t.Helper()
		return p.run(append([]string{"--root", root + "/root", "--runroot", root + "/run", "--storage-driver", "vfs"}, args...)...)
	}
	t.Cleanup(func() {
		exec.Command(p.path, "--root", root+"/root", "--runroot", root+"/run", "--storage-driver", "vfs", "rmi", "-af").Run()
	})
	image, err := random.Image(20_000, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag(t, ours+"/team/web:1"), image); err != nil {
		t.Fatal(err)
	}
	podman("pull", "-q", "--tls-verify=false", ours+"/team/web:1")
	id := podman("image", "inspect", "--format", "{{.Id}}", ours+"/team/web:1")
	podman("push", "-q", "--tls-verify=false", ours+"/team/web:1", theirs+"/team/web:1")
	podman("push", "-q", "--tls-verify=false", ours+"/team/web:1", ours+"/team/web:2")
	podman("rmi", "-f", id)
	podman("pull", "-q", "--tls-verify=false", ours+"/team/web:2")
	if got := podman("image", "inspect", "--format", "{{.Id}}", ours+"/team/web:2"); got != id {
		t.Errorf("image %s comes back as %s", id, got)
	}
	for _, r := range []string{theirs + "/team/web:1", ours + "/team/web:2"} {
		m, err := remote.Image(tag(t, r))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := m.ConfigName(); err != nil || c != must(image.ConfigName()) {
			t.Errorf("%s has config %s, %v", r, c, err)
		}
	}
}

func must(h v1.Hash, err error) v1.Hash {
	if err != nil {
		panic(err)
	}
	return h
}
