package oracle

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// storeName is what the client calls the layout with the bases.
const storeName = "bases"

// long ago is the time of all that a case starts from.
var longAgo = time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)

// bases is an OCI layout with images to start from, and which name stands for what.
type bases struct {
	content.Store
	attrs map[string]string // for the frontend
}

// newBases makes the images: busybox plain, with settings of its own, and with triggers.
func newBases(t testing.TB) *bases {
	t.Helper()
	box, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox: a static one (Debian: busybox-static)")
	}
	if out, err := exec.Command("ldd", box).CombinedOutput(); err == nil && !strings.Contains(string(out), "not a dynamic") {
		t.Skip("needs busybox: this one is not static (Debian: busybox-static)")
	}
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &bases{Store: store, attrs: map[string]string{}}
	root := busyboxRoot(t, box)
	extra := layerOf(t, file("etc/base-two", "two\n", 0o640, 5, 6), file("opt/.wh.gone", "", 0o600, 0, 0))
	path := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	b.add(t, "busybox", ocispecs.ImageConfig{Env: path, Cmd: []string{"sh"}}, "", root)
	b.add(t, "configured", ocispecs.ImageConfig{
		Env: append(path, "FROM_BASE=1", "SHARED=base"), User: "1000:2000", WorkingDir: "/home/app", Entrypoint: []string{"/entry"}, Cmd: []string{"arg"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}}, Volumes: map[string]struct{}{"/data": {}}, Labels: map[string]string{"base": "yes", "shared": "base"}, StopSignal: "SIGUSR1",
	}, `"Healthcheck":{"Test":["CMD","true"],"Interval":5000000000},"Shell":["/bin/sh","-ec"]`, root, extra)
	b.add(t, "triggers", ocispecs.ImageConfig{Env: path}, `"OnBuild":["COPY hello.txt /onbuild/","RUN echo triggered >/onbuild/ran","ENV TRIGGERED=1"]`, root)
	b.add(t, "bare", ocispecs.ImageConfig{}, "", root)
	return b
}

// add puts an image into the layout. more are fields of its configuration that Docker has and OCI has not.
func (b *bases) add(t testing.TB, name string, c ocispecs.ImageConfig, more string, layers ...[]byte) {
	t.Helper()
	img := ocispecs.Image{Created: &longAgo, Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"}, Config: c, RootFS: ocispecs.RootFS{Type: "layers"}}
	m := ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest}
	for i, l := range layers {
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(l))
		img.History = append(img.History, ocispecs.History{Created: &longAgo, CreatedBy: "layer " + string(rune('a'+i))})
		m.Layers = append(m.Layers, b.blob(t, ocispecs.MediaTypeImageLayer, l))
	}
	img.History = append(img.History, ocispecs.History{Created: &longAgo, CreatedBy: "settings", EmptyLayer: true})
	text, err := json.Marshal(img)
	if err != nil {
		t.Fatal(err)
	}
	if more != "" {
		sep := ","
		if bytes.Contains(text, []byte(`"config":{}`)) {
			sep = ""
		}
		text = bytes.Replace(text, []byte(`"config":{`), []byte(`"config":{`+more+sep), 1)
	}
	m.Config = b.blob(t, ocispecs.MediaTypeImageConfig, text)
	if text, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	d := b.blob(t, ocispecs.MediaTypeImageManifest, text)
	b.attrs["context:"+name] = "oci-layout://" + storeName + "@" + d.Digest.String()
}

func (b *bases) blob(t testing.TB, mediaType string, data []byte) ocispecs.Descriptor {
	t.Helper()
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(context.Background(), b, d.Digest.String(), bytes.NewReader(data), d); err != nil {
		t.Fatal(err)
	}
	return d
}

type entry struct {
	tar.Header
	body string
}

func file(name, body string, mode int64, uid, gid int) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Uid: uid, Gid: gid}, body}
}

func dir(name string, mode int64, uid, gid int) entry {
	return entry{tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: mode, Uid: uid, Gid: gid}, ""}
}

func link(name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: target}, ""}
}

func layerOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size, e.ModTime = int64(len(e.body)), longAgo
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// busyboxRoot is a small root: one program with its names, users, groups, links and directories of several looks.
func busyboxRoot(t testing.TB, box string) []byte {
	t.Helper()
	program, err := os.ReadFile(box)
	if err != nil {
		t.Fatal(err)
	}
	names, err := exec.Command(box, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	list := []entry{dir("bin", 0o755, 0, 0), file("bin/busybox", string(program), 0o755, 0, 0)}
	for name := range strings.FieldsSeq(string(names)) {
		if name != "busybox" {
			list = append(list, link("bin/"+name, "busybox"))
		}
	}
	return layerOf(t, append(list,
		dir("dev", 0o755, 0, 0), dir("etc", 0o755, 0, 0), dir("home", 0o755, 0, 0), dir("home/app", 0o750, 1000, 2000), dir("opt", 0o755, 0, 0), dir("opt/gone", 0o755, 0, 0),
		dir("proc", 0o555, 0, 0), dir("root", 0o700, 0, 0), dir("run", 0o755, 0, 0), dir("sys", 0o555, 0, 0), dir("tmp", 0o1777, 0, 0), dir("usr", 0o755, 0, 0), dir("usr/bin", 0o755, 0, 0),
		dir("var", 0o755, 0, 0), link("var/run", "../run"), link("lib", "usr/lib"), dir("usr/lib", 0o755, 0, 0), file("usr/lib/data", "data\n", 0o644, 0, 0),
		file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:2000::/home/app:/bin/sh\nother:x:1001:1001::/:/bin/sh\n", 0o644, 0, 0),
		file("etc/group", "root:x:0:\napps:x:2000:app\nextra:x:3000:app,other\n", 0o644, 0, 0),
		file("opt/gone/file", "gone\n", 0o644, 0, 0), file("opt/secret", "s\n", 0o600, 7, 8), link("opt/link", "secret"),
	)...)
}
