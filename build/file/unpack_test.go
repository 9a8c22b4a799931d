package file

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/solver/pb"
)

type tarEntry struct {
	name, link, content string
	kind                byte
	mode                int64
}

func tarOf(t testing.TB, entries ...tarEntry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: e.mode, Size: int64(len(e.content)), Uid: 11, Gid: 12, ModTime: time.Unix(77, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func add(a *pb.FileActionCopy) {
	dockerfile(a)
	a.AttemptUnpackDockerCompatibility = true
}

func TestUnpack(t *testing.T) {
	root(t)
	plain := tarOf(t,
		tarEntry{name: "./", kind: tar.TypeDir, mode: 0o700},
		tarEntry{name: "d/", kind: tar.TypeDir, mode: 0o750},
		tarEntry{name: "d/f", kind: tar.TypeReg, mode: 0o640, content: "F"},
		tarEntry{name: "l", kind: tar.TypeSymlink, link: "/etc", mode: 0o777},
		tarEntry{name: "l/g", kind: tar.TypeReg, mode: 0o600, content: "G"},
		tarEntry{name: ".wh.x", kind: tar.TypeReg, mode: 0o600},
		tarEntry{name: "h", kind: tar.TypeLink, link: "d/f"})
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	_, err := w.Write(plain)
	need(t, err)
	need(t, w.Close())
	enc, err := zstd.NewWriter(nil)
	need(t, err)
	zst := enc.EncodeAll(plain, nil)
	tree := func(own string) string {
		return strings.ReplaceAll("opt/ 755 DIR\nopt/.wh.x 600 OWN\nopt/d/ 750 OWN\nopt/d/f 640 OWN F\nopt/etc/ 755 IMP\nopt/etc/g 600 OWN G\nopt/h == opt/d/f\nopt/l -> /etc", "OWN", own)
	}
	for _, tt := range []struct {
		name string
		file []byte
		own  *owner
		want string
	}{
		{"tar", plain, nil, strings.NewReplacer("DIR", "0:0", "IMP", "0:0").Replace(tree("11:12"))},
		{"gzip", gz.Bytes(), nil, strings.NewReplacer("DIR", "0:0", "IMP", "0:0").Replace(tree("11:12"))},
		{"zstd", zst, &owner{7, 8}, strings.NewReplacer("DIR", "7:8", "IMP", "0:0").Replace(tree("7:8"))},
		{"compressed, but no archive", append([]byte{0x1f, 0x8b, 8}, "garbage"...), nil, "opt/ 755 0:0\nopt/x.tar 644 0:0 \x1f\x8b\bgarbage"},
		{"empty archive", make([]byte, 1024), nil, "opt/ 755 0:0\nopt/x.tar 644 0:0 " + strings.Repeat("\x00", 1024)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src, dst := grow(t), grow(t, "etc/")
			need(t, os.WriteFile(filepath.Join(real(t, src), "x.tar"), tt.file, 0o644))
			need(t, copyTo(t.Context(), src, place{root: dst}, copyOf("/*.tar", "/opt/", add), tt.own))
			if got, want := dump(t, dst), "etc/ 755 0:0\n"+tt.want; got != want {
				t.Errorf("got\n%q\nwant\n%q", got, want)
			}
		})
	}
}

func TestUnpackHostile(t *testing.T) {
	for _, tt := range []struct {
		name    string
		entries []tarEntry
	}{
		{"up", []tarEntry{{name: "../../up", kind: tar.TypeReg, mode: 0o644, content: "x"}}},
		{"absolute", []tarEntry{{name: "/tmp/../../up", kind: tar.TypeReg, mode: 0o644, content: "x"}}},
		{"link out", []tarEntry{{name: "l", kind: tar.TypeSymlink, link: "../../.."}, {name: "l/up", kind: tar.TypeReg, mode: 0o644, content: "x"}}},
		{"hard link out", []tarEntry{{name: "l", kind: tar.TypeLink, link: "../../secret"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src, dst := grow(t), grow(t, "in/")
			outside := filepath.Dir(real(t, dst))
			need(t, os.WriteFile(filepath.Join(real(t, dst), "secret"), []byte("s"), 0o600))
			need(t, os.WriteFile(filepath.Join(real(t, src), "x.tar"), tarOf(t, tt.entries...), 0o644))
			_ = copyTo(t.Context(), src, place{root: dst}, copyOf("/x.tar", "/in/", add), nil) // an error is fine, leaving is not
			if _, err := os.Lstat(filepath.Join(real(t, dst), "up")); err == nil {
				t.Error("something was unpacked outside the destination")
			}
			if _, err := os.Lstat(filepath.Join(outside, "up")); err == nil {
				t.Error("something was unpacked outside the tree")
			}
			if b, err := os.ReadFile(filepath.Join(real(t, dst), "in", "l")); err == nil && string(b) == "s" {
				t.Error("an archive got hold of a file outside the destination")
			}
		})
	}
}
