package blob

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	ctdlocal "github.com/containerd/containerd/v2/plugins/content/local"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/build/graph"
	"berth/build/progress"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/image/layer"
	"berth/image/remote"
	"berth/kernel/tree"
)

func TestBlobs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: owners and trusted attributes of layers")
	}
	layers, err := layer.Open(layer.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer layers.Close()
	snapshots, err := snapshot.Open(snapshot.Config{Layers: layers, Root: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer snapshots.Close()
	client, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	sessions := session.NewManager(nil)
	defer sessions.Close()
	store, err := ctdlocal.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	good := digest.FromString("content")
	if err := ctdcontent.WriteBlob(context.Background(), store, "x", strings.NewReader("content"), ocispec.Descriptor{Digest: good, Size: 7}); err != nil {
		t.Fatal(err)
	}
	id, end, err := sessions.Local(t.Context(), "k", sessioncontent.NewAttachable(map[string]ctdcontent.Store{"oci:mine": store}))
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			_, _ = io.WriteString(w, "content")
		}
	}))
	defer server.Close()
	image := SchemeImage + "://" + strings.TrimPrefix(server.URL, "http://") + "/a/b@"
	mine := map[string]string{pb.AttrOCILayoutStoreID: "mine", pb.AttrOCILayoutSessionID: id}
	b := New(Config{Remote: client, Snapshots: snapshots, Sessions: sessions})
	for _, x := range []struct {
		identifier string
		attrs      map[string]string
		file, want string // the file; or what the error says
	}{
		{SchemeLayout + "://any/name@" + string(good), mine, good.Encoded(), ""},
		{image + string(good), map[string]string{pb.AttrHTTPFilename: "f", pb.AttrHTTPPerm: "0640", pb.AttrHTTPUID: "3"}, "f", ""},
		{image + string(good), map[string]string{pb.AttrHTTPFilename: "../../etc/x"}, "x", ""},
		{image + string(good), map[string]string{pb.AttrHTTPFilename: ".."}, good.Encoded(), ""},
		{image + string(digest.FromString("other")), nil, "", "digest mismatch"},
		{SchemeLayout + "://a@" + string(good), nil, "", "requires store id"},
		{image + "sha256:x", nil, "", "invalid reference digest"},
		{SchemeImage + "://a/b:tag", nil, "", "invalid image blob identifier"},
		{image + string(good), map[string]string{pb.AttrHTTPUID: "-1"}, "", "attribute"},
	} {
		v := &graph.Vertex{Op: &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: x.identifier, Attrs: x.attrs}}}}
		text, err := read(t, b, v, &solver.Run{Vertex: v, Manager: sessions, Progress: progress.Discard}, x.file)
		switch {
		case x.want == "" && (err != nil || text != "content"):
			t.Errorf("%s %v: %q %v", x.identifier, x.attrs, text, err)
		case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)):
			t.Errorf("%s %v: %v, want %q", x.identifier, x.attrs, err, x.want)
		}
	}
}

func read(t *testing.T, b *Blobs, v *graph.Vertex, r *solver.Run, file string) (string, error) {
	t.Helper()
	src, err := b.Source(v)
	if err != nil {
		return "", err
	}
	p, err := src.Pin(t.Context(), r)
	if err != nil {
		return "", err
	}
	snap, err := p.Snapshot(t.Context())
	if err != nil {
		return "", err
	}
	defer snap.Release()
	var text bytes.Buffer
	err = snap.View(t.Context(), func(root *tree.Dir) error {
		f, err := root.OpenFile(file)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(&text, f)
		return err
	})
	return text.String(), err
}
