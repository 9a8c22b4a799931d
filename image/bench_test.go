package image

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/image/archive/compress"
)

// The archive to load: a docker archive whose layers are PATH/layer.tar, compressed or not.
func benchArchive(b *testing.B) string {
	path := os.Getenv("BERTH_BENCH_ARCHIVE")
	if path == "" {
		b.Skip("needs BERTH_BENCH_ARCHIVE: a docker save archive")
	}
	if os.Getuid() != 0 {
		b.Skip("needs root")
	}
	return path
}

// cpu reports the processor time of this process for each iteration: steadier than the clock on a busy machine.
func cpu(b *testing.B) func() {
	var before syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	return func() {
		var after syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		spent := time.Duration(after.Utime.Nano() - before.Utime.Nano() + after.Stime.Nano() - before.Stime.Nano())
		b.ReportMetric(float64(spent.Milliseconds())/float64(b.N), "cpu-ms/op")
	}
}

func BenchmarkLoad(b *testing.B) {
	path := benchArchive(b)
	done := cpu(b)
	for b.Loop() {
		s, err := Open(Config{Root: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Load(ctx, f, LoadOptions{}); err != nil {
			b.Fatal(err)
		}
		f.Close()
		s.Close()
	}
	done()
}

// BenchmarkFloor does what any loader must and nothing else: read, decompress, hash, unpack, one sync. It trusts its input.
func BenchmarkFloor(b *testing.B) {
	path := benchArchive(b)
	done := cpu(b)
	for b.Loop() {
		root := b.TempDir()
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		outer := tar.NewReader(bufio.NewReaderSize(f, 256<<10))
		want := map[digest.Digest]bool{}
		for n := 0; ; n++ {
			h, err := outer.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			if filepath.Base(h.Name) != "layer.tar" {
				if raw, _ := io.ReadAll(outer); len(raw) > 0 && raw[0] == '{' {
					var d Document
					json.Unmarshal(raw, &d)
					for _, id := range d.RootFS.DiffIDs {
						delete(want, id)
					}
				}
				continue
			}
			d, err := floorLayer(filepath.Join(root, filepath.Dir(h.Name)), outer)
			if err != nil {
				b.Fatal(err)
			}
			want[d] = true
		}
		if len(want) != 0 {
			b.Fatal("digests differ")
		}
		f.Close()
		fd, _ := unix.Open(root, unix.O_RDONLY, 0)
		unix.Syncfs(fd)
		unix.Close(fd)
	}
	done()
}

type streamReader struct {
	s    *compress.Stream
	rest []byte
}

func (r *streamReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		var err error
		if r.rest, err = r.s.Next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func floorLayer(root string, r io.Reader) (digest.Digest, error) {
	s, err := compress.NewStream(r, "")
	if err != nil {
		return "", err
	}
	defer s.Close()
	in := &streamReader{s: s}
	tr := tar.NewReader(in)
	os.MkdirAll(root, 0o755)
	buf := make([]byte, 128<<10)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			io.Copy(io.Discard, in)
			d, _, err := s.Digest()
			return d, err
		}
		if err != nil {
			return "", err
		}
		p := filepath.Join(root, h.Name)
		ts := []unix.Timespec{unix.NsecToTimespec(h.ModTime.UnixNano()), unix.NsecToTimespec(h.ModTime.UnixNano())}
		switch h.Typeflag {
		case tar.TypeDir:
			os.MkdirAll(p, 0o755)
			unix.Chown(p, h.Uid, h.Gid)
			unix.Chmod(p, uint32(h.Mode))
		case tar.TypeSymlink:
			os.MkdirAll(filepath.Dir(p), 0o755)
			unix.Symlink(h.Linkname, p)
			unix.Lchown(p, h.Uid, h.Gid)
		case tar.TypeLink:
			os.MkdirAll(filepath.Dir(p), 0o755)
			unix.Link(filepath.Join(root, h.Linkname), p)
			continue
		default:
			fd, err := unix.Open(p, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
			if err == unix.ENOENT {
				os.MkdirAll(filepath.Dir(p), 0o755)
				fd, err = unix.Open(p, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
			}
			if err != nil {
				return "", err
			}
			for {
				n, err := tr.Read(buf)
				if n > 0 {
					unix.Write(fd, buf[:n])
				}
				if err != nil {
					break
				}
			}
			unix.Fchown(fd, h.Uid, h.Gid)
			unix.Fchmod(fd, uint32(h.Mode))
			unix.Close(fd)
		}
		unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
	}
}

func BenchmarkSave(b *testing.B) {
	path := benchArchive(b)
	s, err := Open(Config{Root: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	list, err := s.Load(ctx, f, LoadOptions{})
	if err != nil {
		b.Fatal(err)
	}
	done := cpu(b)
	for b.Loop() {
		if err := s.Save(ctx, io.Discard, []string{list[0].ID}, nil); err != nil {
			b.Fatal(err)
		}
	}
	done()
}
