package image

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// tool is a program of another project. BERTH_TEST_NAME may say how to run it, as words.
type tool struct {
	t     *testing.T
	words []string
}

func needTool(t *testing.T, name string, args ...string) *tool {
	t.Helper()
	words := strings.Fields(os.Getenv("BERTH_TEST_" + strings.ToUpper(name)))
	if len(words) == 0 {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s, or BERTH_TEST_%s", name, strings.ToUpper(name))
		}
		words = []string{name}
	}
	return &tool{t, append(words, args...)}
}

func (x *tool) run(args ...string) string {
	x.t.Helper()
	all := append(slices.Clone(x.words), args...)
	cmd := exec.Command(all[0], all[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		x.t.Fatalf("%s: %v: %s%s", strings.Join(all, " "), err, out, stderr.String())
	}
	return string(out)
}

// shared is a directory that tools see also where they run in a root of their own.
func shared(t *testing.T) string {
	dir, err := os.MkdirTemp("/tmp", fmt.Sprintf("berth-test-%d-", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (h *harness) saveTo(path string, refs ...string) {
	h.t.Helper()
	f, err := os.Create(path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	if err := h.Save(ctx, f, refs, nil); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) loadFrom(path string) []string {
	h.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.load(b)
}

// An index with kept blobs goes through skopeo and back with all its digests; without them with all its platforms.
func TestInteropSkopeoPlatforms(t *testing.T) {
	skopeo := needTool(t, "skopeo", "--insecure-policy")
	dir := shared(t)
	for _, keep := range []bool{true, false} {
		h := open(t)
		h.keep = keep
		h.reopen()
		m := makeSeveral(t, "1")
		m.l.blobs[blobPath(m.index.Digest)] = "" // without the attestation: skopeo does not copy what is for no platform
		m.index = m.l.add("application/vnd.oci.image.index.v1+json", m.l.index(m.manifests["arm64"], m.manifests["amd64"], m.manifests["s390x"]))
		h.load(m.archive("docker.io/library/app:1"))
		ours, theirs := filepath.Join(dir, "ours.tar"), filepath.Join(dir, "theirs.tar")
		os.Remove(theirs)
		h.saveTo(ours, "app:1")
		if got := digest.FromString(skopeo.run("inspect", "--raw", "oci-archive:"+ours)); keep && got != m.index.Digest {
			t.Errorf("skopeo sees %s, the index is %s", got, m.index.Digest)
		}
		skopeo.run("copy", "--all", "--preserve-digests", "oci-archive:"+ours, "oci-archive:"+theirs+":docker.io/library/app:1")
		other := open(t)
		same(t, "load", other.loadFrom(theirs), []string{"Loaded image: app:1"})
		same(t, "tree", other.tree("app:1"), []string{"image linux/arm64 true 9", "image linux/amd64 true 9", "image linux/s390x true 9"})
		img, err := other.Resolve("app:1")
		if err != nil || img.ID != m.amd.id() || keep && img.Index.Digest != m.index.Digest {
			t.Errorf("%+v %v", img, err)
		}
	}
}

func TestInteropUmoci(t *testing.T) {
	umoci := needTool(t, "umoci")
	dir := shared(t)
	h := open(t)
	s := makeSample(t, nil, tarOf(t, "bin/", "", "bin/sh", "shell", "gone", "x"), tarOf(t, "bin/ls", "list", ".wh.gone", ""))
	h.load(s.dockerArchive(t, "app:1"))
	ours := filepath.Join(dir, "ours.tar")
	h.saveTo(ours, "app:1")
	layout := filepath.Join(dir, "layout")
	os.Mkdir(layout, 0o755)
	if out, err := exec.Command("tar", "-C", layout, "-xf", ours).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	// The archive's tag is "1", which is what umoci knows the image by.
	bundle := filepath.Join(dir, "bundle")
	umoci.run("unpack", "--image", layout+":1", bundle)
	if b, err := os.ReadFile(filepath.Join(bundle, "rootfs/bin/ls")); err != nil || string(b) != "list" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(bundle, "rootfs/gone")); err == nil {
		t.Error("umoci does not see the whiteout")
	}
	// Changed by umoci, which compresses, and loaded here.
	os.WriteFile(filepath.Join(bundle, "rootfs/added"), []byte("by umoci"), 0o644)
	umoci.run("repack", "--image", layout+":2", bundle)
	umoci.run("config", "--image", layout+":2", "--config.cmd", "/bin/ls")
	umoci.run("rm", "--image", layout+":1") // it gave the new one the annotations of the old, with its name
	theirs := filepath.Join(dir, "theirs.tar")
	os.Remove(filepath.Join(layout, "manifest.json")) // speaks of the image as it was
	if out, err := exec.Command("tar", "-C", layout, "-cf", theirs, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	other := open(t)
	same(t, "load", other.loadFrom(theirs), []string{"Loaded image: app:1"})
	img, err := other.Resolve("app:1")
	if err != nil || img.ID == s.id() || img.Config.Config.Cmd[0] != "/bin/ls" {
		t.Errorf("%+v %v", img, err)
	}
	same(t, "files", other.files("app:1"), []string{"added=by umoci", "bin/ls=list", "bin/sh=shell"})
}

func TestInteropPodman(t *testing.T) {
	dir := shared(t)
	podman := needTool(t, "podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file")
	h := open(t)
	m := makeSeveral(t, "1")
	h.load(m.archive("docker.io/library/app:1"))
	ours := filepath.Join(dir, "ours.tar")
	h.saveTo(ours, "app:1")
	podman.run("load", "-i", ours)
	if got := strings.TrimSpace(podman.run("image", "inspect", "-f", "{{.Id}}", "docker.io/library/app:1")); got != hexOf(m.amd.id()) {
		t.Errorf("podman has %s, we %s", got, m.amd.id())
	}
	for _, format := range []string{"docker-archive", "oci-archive"} {
		theirs := filepath.Join(dir, format+".tar")
		podman.run("save", "--format", format, "-o", theirs, "docker.io/library/app:1")
		other := open(t)
		same(t, format, other.loadFrom(theirs), []string{"Loaded image: app:1"})
		same(t, format, other.files("app:1"), []string{"bin/sh=amd641", "etc/shared=all"})
		if img, _ := other.Resolve("app:1"); img.ID != m.amd.id() {
			t.Errorf("%s: %s", format, img.ID)
		}
	}
	// A list of platforms, pushed into an archive.
	arm := platform(t, "linux/arm64")
	f, err := os.Create(filepath.Join(dir, "arm.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Save(ctx, f, []string{"app:1"}, &arm); err != nil {
		t.Fatal(err)
	}
	f.Close()
	podman.run("manifest", "create", "list:1")
	podman.run("manifest", "add", "list:1", "docker-archive:"+f.Name())
	podman.run("manifest", "add", "list:1", "docker-archive:"+ours)
	theirs := filepath.Join(dir, "list.tar")
	podman.run("manifest", "push", "--all", "list:1", "oci-archive:"+theirs+":docker.io/library/list:1")
	other := open(t)
	same(t, "list", other.loadFrom(theirs), []string{"Loaded image: list:1"})
	img, err := other.ResolvePlatform("list:1", &arm)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "list", other.files(img.ID), []string{"bin/sh=arm641", "etc/shared=all"}) // podman 4 writes configurations anew
}

func TestInteropContainerd(t *testing.T) {
	daemon := needTool(t, "containerd")
	dir := shared(t)
	address := filepath.Join(dir, "c.sock")
	ctr := needTool(t, "ctr", "--address", address, "--namespace", "berth-test")
	config := filepath.Join(dir, "config.toml")
	os.WriteFile(config, []byte(fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n",
		filepath.Join(dir, "root"), filepath.Join(dir, "state"), address, address+".ttrpc")), 0o600)
	cmd := exec.Command(daemon.words[0], append(daemon.words[1:], "--config", config, "--log-level", "error")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		cmd.Wait()
	})
	for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if exec.Command(ctr.words[0], append(slices.Clone(ctr.words[1:]), "version")...).Run() == nil {
			break
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("containerd does not answer: %s", log.String())
		}
	}
	for _, keep := range []bool{true, false} {
		h := open(t)
		h.keep = keep
		h.reopen()
		m := makeSeveral(t, "1")
		h.load(m.archive("docker.io/library/app:1"))
		ours, theirs := filepath.Join(dir, "ours.tar"), filepath.Join(dir, "theirs.tar")
		h.saveTo(ours, "app:1")
		ctr.run("images", "import", "--no-unpack", "--all-platforms", ours)
		if got := ctr.run("images", "ls", "name==docker.io/library/app:1"); keep && !strings.Contains(got, string(m.index.Digest)) || !strings.Contains(got, "linux/amd64,linux/arm64") {
			t.Errorf("containerd has %s", got)
		}
		ctr.run("images", "export", "--all-platforms", theirs, "docker.io/library/app:1")
		other := open(t)
		same(t, "load", other.loadFrom(theirs), []string{"Loaded image: app:1"})
		tree := []string{"image linux/arm64 true 9", "image linux/amd64 true 9", "image linux/s390x true 9"}
		if keep {
			tree = append(tree, "attestation true")
		}
		same(t, fmt.Sprint("tree, keep ", keep), other.tree("app:1"), tree)
		if img, _ := other.Resolve("app:1"); img.ID != m.amd.id() || keep && img.Index.Digest != m.index.Digest {
			t.Errorf("%+v", img)
		}
		ctr.run("images", "rm", "--sync", "docker.io/library/app:1")
	}
}
