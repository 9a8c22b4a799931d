package lazy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/kernel/fuse"
)

// podmanBlob is a layer as c/storage makes it: three frames of one file's chunks, one of zeros among them, then the TOC.
func podmanBlob(t testing.TB, change func(entries []map[string]any)) (blob []byte, d ocispec.Descriptor) {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	parts := []string{strings.Repeat("first ", 100), strings.Repeat("\x00", 2000), strings.Repeat("last ", 100)}
	blob = enc.EncodeAll([]byte("a tar header"), nil)
	var offsets []int
	for _, p := range parts {
		offsets = append(offsets, len(blob))
		blob = enc.EncodeAll([]byte(p), blob)
	}
	end := len(blob)
	small := len(blob)
	blob = enc.EncodeAll([]byte("small"), blob)
	whole := strings.Join(parts, "")
	sum := func(s string) string { return digest.FromString(s).String() }
	entries := []map[string]any{
		{"type": "dir", "name": "d/", "mode": 0o755, "modtime": "2020-09-13T12:26:40.5Z", "xattrs": map[string]string{"user.a": "Yg=="}},
		{"type": "reg", "name": "d/f", "mode": 0o644, "size": len(whole), "digest": sum(whole), "offset": offsets[0], "endOffset": end, "chunkSize": len(parts[0]), "chunkDigest": sum(parts[0])},
		{"type": "chunk", "name": "d/f", "offset": offsets[1], "chunkOffset": len(parts[0]), "chunkSize": len(parts[1]), "chunkDigest": sum(parts[1]), "chunkType": "zeros"},
		{"type": "chunk", "name": "d/f", "offset": offsets[2], "chunkOffset": len(parts[0]) + len(parts[1]), "chunkSize": len(parts[2]), "chunkDigest": sum(parts[2])},
		{"type": "reg", "name": "small", "mode": 0o600, "size": 5, "digest": sum("small"), "offset": small, "endOffset": len(blob)},
		{"type": "hardlink", "name": "hard", "linkName": "small"},
		{"type": "symlink", "name": "soft", "linkName": "d/f"},
	}
	if change != nil {
		change(entries)
	}
	text, err := json.Marshal(map[string]any{"version": 1, "entries": entries})
	if err != nil {
		t.Fatal(err)
	}
	packed := enc.EncodeAll(text, nil)
	blob = append(blob, 0x50, 0x2a, 0x4d, 0x18, byte(len(packed)), byte(len(packed)>>8), 0, 0)
	at := len(blob)
	blob = append(blob, packed...)
	return blob, ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob)), Annotations: map[string]string{
		"io.github.containers.zstd-chunked.manifest-checksum": digest.FromBytes(packed).String(),
		"io.github.containers.zstd-chunked.manifest-position": fmt.Sprintf("%d:%d:%d:1", at, len(packed), len(text)),
	}}
}

func readBlob(blob []byte, d ocispec.Descriptor) (*toc, *tree, error) {
	p, err := planOf(d)
	if err != nil {
		return nil, nil, err
	}
	t, err := readTOC(context.Background(), d, p, func(_ context.Context, off, n int64) ([]byte, error) {
		if off < 0 || n < 0 || off+n > int64(len(blob)) {
			return nil, fmt.Errorf("range %d+%d", off, n)
		}
		return blob[off : off+n], nil
	})
	if err != nil {
		return nil, nil, err
	}
	tr, err := buildTree(context.Background(), t, "trusted.overlay.opaque")
	return t, tr, err
}

func TestPodmansForm(t *testing.T) {
	blob, d := podmanBlob(t, nil)
	toc, tr, err := readBlob(blob, d)
	if err != nil {
		t.Fatal(err)
	}
	c := &content{m: &Manager{memory: newMemory(1 << 20)}, tree: tr, form: toc.form}
	read := func(path string) string {
		n := fuse.Root
		for part := range strings.SplitSeq(path, "/") {
			var err error
			if n, err = c.Lookup(n, part); err != nil {
				t.Fatal(path, err)
			}
		}
		f, _ := c.node(n)
		var out []byte
		for i := f.first; i < f.first+f.count; i++ {
			k := &tr.chunks[i]
			b := make([]byte, k.size)
			if !k.zero {
				if b, err = c.m.decoders.chunk(toc.form, blob[k.off:k.end], k); err != nil {
					t.Fatal(err)
				}
			}
			out = append(out, b...)
		}
		return string(out)
	}
	if got, want := read("d/f"), strings.Repeat("first ", 100)+strings.Repeat("\x00", 2000)+strings.Repeat("last ", 100); got != want {
		t.Errorf("%q", got)
	}
	if read("small") != "small" || read("hard") != "small" {
		t.Error("small files")
	}
	dir, _ := c.Lookup(fuse.Root, "d")
	a, _ := c.Attr(dir)
	if v, err := c.Xattr(dir, "user.a"); string(v) != "b" || err != nil || a.Mtime.Sec != 1600000000 || a.Mtime.Nsec != 5e8 || a.Nlink != 2 {
		t.Errorf("%+v %q %v", a, v, err)
	}
}

// What the numbers of nodes are is a format: views outlive their engine.
func TestNumbering(t *testing.T) {
	blob, d := podmanBlob(t, nil)
	_, tr, err := readBlob(blob, d)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range tr.nodes[1:] {
		got = append(got, fmt.Sprintf("%d=%s", i+1, tr.path(fuse.Node(i+1))))
	}
	want := "1= 2=d 3=d/f 4=small 5=soft"
	if g := strings.Replace(strings.Join(got, " "), "=hard", "=small", 1); g != want || numbering != 1 {
		t.Errorf("%s, want %s: another numbering needs another number", g, want)
	}
}

func TestRefused(t *testing.T) {
	for name, change := range map[string]func(e []map[string]any){
		"no digest":      func(e []map[string]any) { delete(e[4], "digest") },
		"sha512":         func(e []map[string]any) { e[4]["digest"] = "sha512:" + strings.Repeat("0", 128) },
		"gap":            func(e []map[string]any) { e[2]["chunkOffset"] = 601 },
		"too long":       func(e []map[string]any) { e[3]["chunkSize"] = 501 },
		"too short":      func(e []map[string]any) { e[1]["size"] = 999999 },
		"negative":       func(e []map[string]any) { e[1]["size"] = -1 },
		"huge chunk":     func(e []map[string]any) { e[4]["size"] = int64(1) << 40 },
		"outside":        func(e []map[string]any) { e[4]["offset"] = 1 << 40 },
		"inner":          func(e []map[string]any) { e[4]["innerOffset"] = int64(1) << 40 },
		"negative inner": func(e []map[string]any) { e[4]["innerOffset"] = -1 },
		"up":             func(e []map[string]any) { e[4]["name"] = "../small" },
		"no name":        func(e []map[string]any) { e[4]["name"] = "" },
		"zero in name":   func(e []map[string]any) { e[4]["name"] = "a\x00b" },
		"long name":      func(e []map[string]any) { e[4]["name"] = strings.Repeat("x", 256) },
		"in a file":      func(e []map[string]any) { e[5]["name"] = "small/x" },
		"link nowhere":   func(e []map[string]any) { e[5]["linkName"] = "nothing" },
		"link to dir":    func(e []map[string]any) { e[5]["linkName"] = "d" },
		"empty symlink":  func(e []map[string]any) { e[6]["linkName"] = "" },
		"type":           func(e []map[string]any) { e[6]["type"] = "socket" },
		"owner":          func(e []map[string]any) { e[0]["uid"] = int64(1) << 32 },
		"chunk first":    func(e []map[string]any) { e[0]["type"] = "chunk" },
		"root file":      func(e []map[string]any) { e[4]["name"] = "./" },
		"time":           func(e []map[string]any) { e[0]["modtime"] = "yesterday" },
		"device":         func(e []map[string]any) { e[6]["type"], e[6]["devMajor"] = "char", 1<<20 },
		"loop": func(e []map[string]any) {
			e[5]["type"], e[5]["linkName"] = "symlink", "hard"
			e[6]["name"] = "hard/x"
		},
	} {
		blob, d := podmanBlob(t, change)
		if _, _, err := readBlob(blob, d); fault.KindOf(err) != fault.NotImplemented && fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRanges(t *testing.T) {
	var r ranges
	for _, x := range [][2]int64{{10, 20}, {30, 40}, {20, 25}, {0, 5}, {24, 31}, {50, 50}, {60, 70}} {
		r = r.add(x[0], x[1])
	}
	if fmt.Sprint(r) != "[[0 5] [10 40] [60 70]]" || r.size() != 45 {
		t.Errorf("%v", r)
	}
	for _, c := range []struct {
		a, b     int64
		from, to int64
		ok       bool
	}{{0, 5, 5, 5, false}, {0, 8, 5, 8, true}, {0, 100, 5, 10, true}, {12, 100, 40, 60, true}, {65, 100, 70, 100, true}, {41, 59, 41, 59, true}, {10, 40, 40, 40, false}} {
		if from, to, ok := r.gap(c.a, c.b); ok != c.ok || ok && (from != c.from || to != c.to) {
			t.Errorf("gap of %d %d: %d %d %v", c.a, c.b, from, to, ok)
		}
	}
	if got := fmt.Sprint(r.remove(3, 15)); got != "[[0 3] [15 40] [60 70]]" {
		t.Error(got)
	}
	if got := r.remove(20, 30); fmt.Sprint(got) != "[[0 5] [10 20] [30 40] [60 70]]" || fmt.Sprint(decodeRanges(got.encode(), 70)) != fmt.Sprint(got) {
		t.Error(got)
	}
	if decodeRanges(r.encode(), 69) != nil || decodeRanges([]byte("x"), 70) != nil {
		t.Error("damaged ranges were taken")
	}
}

// A table of contents comes from whoever made the image: nothing in it may make us fall over.
func FuzzTOC(f *testing.F) {
	for _, name := range []string{"d/f", ".wh.x", "a/.wh..wh..opq", "../x", "./"} {
		blob, _ := podmanBlob(f, func(e []map[string]any) { e[4]["name"] = name })
		_ = blob
		f.Add([]byte(`{"version":1,"entries":[{"type":"symlink","name":"l","linkName":"`+name+`"},{"type":"reg","name":"l/`+name+`","size":3,"digest":"`+digest.FromString("abc").String()+`"},{"type":"dir","name":"`+name+`"}]}`), int64(100))
	}
	f.Fuzz(func(t *testing.T, text []byte, offset int64) {
		for _, form := range []form{eStargz, zstdChunked} {
			c := &toc{form: form, json: text, offset: offset}
			if c.parse() != nil {
				return
			}
			tr, err := buildTree(context.Background(), c, "trusted.overlay.opaque")
			if err != nil {
				continue
			}
			names := 0
			for n := range tr.nodes[1:] {
				v := &content{tree: tr}
				for i := 0; ; i++ {
					name, k, ok := v.Entry(fuse.Node(n+1), i)
					if !ok {
						break
					}
					if got, err := v.Lookup(fuse.Node(n+1), name); err != nil || got != k {
						t.Fatalf("%q: %d %v", name, got, err)
					}
					if names++; strings.Contains(name, "/") || name == "" || name == "." || name == ".." {
						t.Fatalf("name %q", name)
					}
				}
				tr.path(fuse.Node(n + 1))
			}
		}
	})
}

func FuzzFooter(f *testing.F) {
	var b bytes.Buffer
	w := estargz.NewWriter(&b)
	w.Close()
	f.Add(b.Bytes())
	blob, _ := podmanBlob(f, nil)
	f.Add(append(blob, bytes.Repeat([]byte("GnUlInUx"), 6)...))
	f.Fuzz(func(t *testing.T, tail []byte) {
		size := int64(len(tail)) + 1000
		kind, at, n := footer(tail, size)
		if kind != "" && (at <= 0 || n <= 0 || at+n > size) {
			t.Errorf("%s at %d, %d bytes of %d", kind, at, n, size)
		}
	})
}
