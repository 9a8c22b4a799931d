package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"berth/base/fault"
)

// ward is a store with one image of several platforms whose parts can all be fetched again.
type ward struct {
	*harness
	m       *several
	fetched []string // digests, of one Repair
	lie     int      // so many fetches give wrong bytes
}

func newWard(t *testing.T, keep bool) *ward {
	w := &ward{harness: open(t), m: makeSeveral(t, "1")}
	w.keep = keep
	w.reopen()
	w.load(w.m.archive("docker.io/library/app:1"))
	for arch, s := range map[string]sample{"amd64": w.m.amd, "arm64": w.m.arm, "s390x": w.m.z} {
		_ = arch
		for _, tar := range s.layers {
			blob := string(gz(tar))
			src := Source{Repository: "docker.io/library/app", Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString(blob), Size: int64(len(blob))}}
			if err := w.AddSource(digest.FromBytes(tar), src); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

func (w *ward) fetch(_ context.Context, src Source) (io.ReadCloser, error) {
	if src.Repository != "docker.io/library/app" {
		return nil, fault.New(fault.NotFound, "no repository %s", src.Repository)
	}
	content, ok := w.m.l.blobs[blobPath(src.Descriptor.Digest)]
	if !ok {
		return nil, fault.New(fault.NotFound, "no blob %s", src.Descriptor.Digest)
	}
	// As registries have it: manifests in one place, blobs in another.
	isManifest := strings.Contains(content, `"schemaVersion"`)
	if asked := strings.Contains(src.Descriptor.MediaType, "manifest") || strings.Contains(src.Descriptor.MediaType, "index"); asked != isManifest {
		return nil, fault.New(fault.NotFound, "no blob %s", src.Descriptor.Digest)
	}
	w.fetched = append(w.fetched, string(src.Descriptor.Digest))
	if w.lie > 0 {
		w.lie--
		content = strings.Repeat("x", len(content))
	}
	return io.NopCloser(strings.NewReader(content)), nil
}

// place is where a layer of the image for this machine stands.
func (w *ward) place(n int) string {
	return filepath.Join(w.root, "layer", w.Layers().Place(digest.FromBytes(w.m.amd.layers[n])))
}

func (w *ward) doc(d digest.Digest) string {
	return filepath.Join(w.root, "blob", d.Algorithm().String(), d.Encoded())
}

func TestFsckFindsNothing(t *testing.T) {
	w := newWard(t, true)
	// What is there in layers: whiteouts, hard links, implied directories, replaced files, capabilities.
	odd := makeSample(t, nil, tarOf(t, "a/b/c", "1", "x", "old", "x", "new", "l", "-> a"), tarOf(t, ".wh.x", "", "d/", "", "d/.wh..wh..opq", "", "e/f/.wh.g", ""))
	w.load(odd.dockerArchive(t, "odd:1"))
	c, err := w.Fsck(ctx, w.fetch)
	if err != nil || len(c.Damages) != 0 || !c.OK() {
		t.Fatalf("%+v %v", c, err)
	}
	var out bytes.Buffer
	c.Write(&out)
	if got, want := out.String(), "4 images, 2 names, 11 documents, 4 kept blobs, 6 layers: 0 damaged\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestFsckRepairs(t *testing.T) {
	write := func(t *testing.T, path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(t *testing.T, path string) {
		t.Helper()
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	inDB := func(t *testing.T, w *ward, bucket []byte, key, value string) {
		t.Helper()
		if err := w.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put([]byte(key), []byte(value)) }); err != nil {
			t.Fatal(err)
		}
	}
	top := func(w *ward) string { return string(digest.FromBytes(gz(w.m.amd.layers[1]))) }
	for name, c := range map[string]struct {
		keep   bool
		damage func(t *testing.T, w *ward)
		want   string                 // the damages: part, and what
		fetch  func(w *ward) []string // what is fetched
		reopen bool                   // the damage is there when the store is opened
	}{
		"a file's content": {damage: func(t *testing.T, w *ward) { write(t, w.place(1)+"/fs/bin/sh", "amd642") },
			want: "layer its tar has the digest", fetch: func(w *ward) []string { return []string{top(w)} }},
		"a file is shorter": {damage: func(t *testing.T, w *ward) { write(t, w.place(1)+"/fs/bin/sh", "") },
			want: "layer rebuild the tar", fetch: func(w *ward) []string { return []string{top(w)} }},
		"a file is gone": {damage: func(t *testing.T, w *ward) { remove(t, w.place(1)+"/fs/bin/sh") },
			want: "layer rebuild the tar", fetch: func(w *ward) []string { return []string{top(w)} }},
		"a file's content, kept blob": {keep: true, damage: func(t *testing.T, w *ward) { write(t, w.place(1)+"/fs/bin/sh", "amd642") },
			want: "layer its tar has the digest"},
		"a file's mode":   {damage: func(t *testing.T, w *ward) { os.Chmod(w.place(1)+"/fs/bin/sh", 0o777) }, want: "layer /bin/sh has the mode"},
		"a file's owner":  {damage: func(t *testing.T, w *ward) { os.Chown(w.place(1)+"/fs/bin/sh", 5, 5) }, want: "layer /bin/sh belongs to"},
		"a file too many": {damage: func(t *testing.T, w *ward) { write(t, w.place(1)+"/fs/evil", "") }, want: "layer /evil does not belong"},
		"tar-split is cut": {damage: func(t *testing.T, w *ward) { os.Truncate(w.place(1)+"/split.zst", 10) },
			want: "layer rebuild the tar", fetch: func(w *ward) []string { return []string{top(w)} }},
		"a layer is gone": {reopen: true, damage: func(t *testing.T, w *ward) { remove(t, w.place(1)) },
			want: "layer missing", fetch: func(w *ward) []string { return []string{top(w)} }},
		"a layer's description": {reopen: true, damage: func(t *testing.T, w *ward) { write(t, w.place(1)+"/layer.json", "{") },
			want: "layer missing, or", fetch: func(w *ward) []string { return []string{top(w)} }},
		"all of a layer and the configuration": {reopen: true, damage: func(t *testing.T, w *ward) {
			remove(t, w.place(1))
			remove(t, w.doc(digest.Digest(w.m.amd.id())))
		}, want: "document missing|layer missing", fetch: func(w *ward) []string { return []string{w.m.amd.id(), top(w)} }},
		"the configuration": {reopen: true, damage: func(t *testing.T, w *ward) { write(t, w.doc(digest.Digest(w.m.amd.id())), "{}") },
			want: "document damaged", fetch: func(w *ward) []string { return []string{w.m.amd.id()} }},
		"a manifest": {damage: func(t *testing.T, w *ward) { write(t, w.doc(w.m.manifests["amd64"].Digest), "{}") },
			want: "document damaged", fetch: func(w *ward) []string { return []string{string(w.m.manifests["amd64"].Digest)} }},
		"the index, at the start": {reopen: true, damage: func(t *testing.T, w *ward) { remove(t, w.doc(w.m.index.Digest)) },
			want: "document missing", fetch: func(w *ward) []string { return []string{string(w.m.index.Digest)} }},
		"an attestation": {damage: func(t *testing.T, w *ward) { write(t, w.doc(w.m.attests.Digest), "{}") },
			want: "document damaged", fetch: func(w *ward) []string { return []string{string(w.m.attests.Digest)} }},
		"a statement": {damage: func(t *testing.T, w *ward) { remove(t, w.doc(w.m.statement)) },
			want: "document missing", fetch: func(w *ward) []string { return []string{string(w.m.statement)} }},
		"a kept blob": {keep: true, damage: func(t *testing.T, w *ward) { write(t, w.doc(digest.Digest(top(w))), "{}") },
			want: "blob damaged", fetch: func(w *ward) []string { return []string{top(w)} }},
		"a name": {damage: func(t *testing.T, w *ward) {
			inDB(t, w, bucketNames, "docker.io/library/gone:1", `{"image":"sha256:`+strings.Repeat("0", 64)+`"}`)
		}, want: "name stands for image"},
		"a record": {damage: func(t *testing.T, w *ward) { inDB(t, w, bucketImages, "sha256:"+strings.Repeat("1", 64), "{") }, want: "record unreadable"},
		"foreign files": {damage: func(t *testing.T, w *ward) {
			write(t, filepath.Join(w.root, "blob/sha256/readme"), "x")
			os.Mkdir(filepath.Join(w.root, "layer/d/abc"), 0o700)
		}, want: "orphan a file|orphan a directory"},
		"a hold": {damage: func(t *testing.T, w *ward) { w.Layers().Release(digest.FromBytes(w.m.amd.layers[0])) }, want: "hold held 2 times, needed 3 times"},
		"a first source that lies": {damage: func(t *testing.T, w *ward) {
			write(t, w.place(1)+"/fs/bin/sh", "amd642")
			blob := string(gz(w.m.amd.layers[1]))
			w.AddSource(digest.FromBytes(w.m.amd.layers[1]), Source{Repository: "example.com/none", Descriptor: ocispec.Descriptor{Digest: digest.FromString(blob)}})
		}, want: "layer its tar has the digest", fetch: func(w *ward) []string { return []string{top(w)} }},
	} {
		w := newWard(t, c.keep)
		c.damage(t, w)
		if c.reopen {
			w.reopen()
		}
		before, err := w.Fsck(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Split(c.want, "|")
		if len(before.Damages) != len(want) {
			t.Errorf("%s: %d damages: %+v", name, len(before.Damages), before.Damages)
		}
		for i, d := range before.Damages {
			part, what, _ := strings.Cut(want[min(i, len(want)-1)], " ")
			if string(d.Part) != part || !strings.Contains(d.What, what) || !d.Repairable() || d.Repaired {
				t.Errorf("%s: %+v, want %s: …%s…", name, d, part, what)
			}
		}
		if err := w.Repair(ctx, before, w.fetch); err != nil || !before.OK() {
			t.Errorf("%s: %v %+v", name, err, before.Damages)
		}
		var fetched []string
		if c.fetch != nil {
			fetched = c.fetch(w)
		}
		same(t, name+": fetched", w.fetched, fetched)
		for range 2 {
			after, err := w.Fsck(ctx, nil)
			if err != nil || len(after.Damages) != 0 {
				t.Errorf("%s: afterwards %+v %v", name, after, err)
			}
			same(t, name, w.files("app:1"), []string{"bin/sh=amd641", "etc/shared=all"})
			same(t, name, w.tree("app:1"), []string{"image linux/arm64 true 9", "image linux/amd64 true 9", "image linux/s390x true 9", "attestation true"})
			w.reopen()
		}
		if _, err := w.Remove(ctx, "app:1", RemoveOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		w.Layers().WaitTrash(ctx)
		if layers, docs := w.counts(); layers+docs != 0 {
			t.Errorf("%s: %d layers, %d documents stay after all was removed", name, layers, docs)
		}
	}
}

func TestFsckCannotRepair(t *testing.T) {
	w := newWard(t, false)
	if err := os.WriteFile(w.place(1)+"/fs/bin/sh", []byte("amd642"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.uses[w.m.amd.id()] = []Use{{strings.Repeat("c", 64), true}}
	c, err := w.Fsck(ctx, w.fetch)
	if err != nil || c.OK() || !strings.Contains(c.Damages[0].Failed, "in use by running container cccccccccccc") || len(w.fetched) != 0 {
		t.Errorf("running: %+v %v", c.Damages, err)
	}
	delete(w.uses, w.m.amd.id())
	w.lie = 9
	if c, err = w.Fsck(ctx, w.fetch); err != nil || c.OK() || !strings.Contains(c.Damages[0].Failed, "docker.io/library/app: ") {
		t.Errorf("lies: %+v %v", c.Damages, err)
	}
	if left, _ := os.ReadDir(filepath.Join(w.root, "layer", "tmp")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	w.lie = 0
	if c, err = w.Fsck(ctx, w.fetch); err != nil || !c.OK() {
		t.Errorf("%+v %v", c.Damages, err)
	}
	var out bytes.Buffer
	c.Write(&out)
	if !strings.Contains(out.String(), "repaired: fetched from docker.io/library/app") {
		t.Error(out.String())
	}
	// Without any source it is told, and the image can be removed and loaded again.
	lone := small(t, "lone", nil)
	w.load(lone.dockerArchive(t, "lone:1"))
	os.RemoveAll(filepath.Join(w.root, "layer", w.Layers().Place(digest.FromBytes(lone.layers[0]))))
	w.reopen()
	if c, err = w.Fsck(ctx, w.fetch); err != nil || c.OK() || c.Damages[0].Repairable() || fmt.Sprint(c.Damages[0].Images) != "[lone:1]" {
		t.Errorf("%+v %v", c.Damages, err)
	}
	list, err := w.Remove(ctx, "lone:1", RemoveOptions{})
	if err != nil {
		t.Error(err)
	}
	same(t, "removed", removed(list), []string{"Untagged: lone:1", "Deleted: " + lone.id()})
	w.load(lone.dockerArchive(t, "lone:1"))
	os.RemoveAll(filepath.Join(w.root, "layer", w.Layers().Place(digest.FromBytes(lone.layers[0]))))
	w.reopen()
	w.load(lone.dockerArchive(t))
	same(t, "loaded over it", w.files("lone:1"), []string{"f=lone"})
	if c, err = w.Fsck(ctx, nil); err != nil || !c.OK() {
		t.Errorf("%+v %v", c.Damages, err)
	}
}
