package compress

import (
	"bytes"
	stdgzip "compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/ulikunitz/xz"

	"berth/base/fault"
)

func data(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewSource(1))
	r.Read(b)
	for i := range b {
		b[i] = "abcdefgh"[b[i]&7]
	}
	return b
}

func pack(t testing.TB, kind Kind, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch kind {
	case None:
		return b
	case Gzip:
		w = gzip.NewWriter(&out)
	case Zstd:
		w, err = zstd.NewWriter(&out)
	case Xz:
		w, err = xz.NewWriter(&out)
	case Bzip2:
		cmd := exec.Command("bzip2")
		cmd.Stdin = bytes.NewReader(b)
		p, err := cmd.Output()
		if err != nil {
			return nil
		}
		return p
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func TestEveryKind(t *testing.T) {
	for _, kind := range []Kind{None, Gzip, Zstd, Xz, Bzip2} {
		for _, size := range []int{0, 1, 100, chunkSize, 3*chunkSize + 17, 20 * chunkSize} {
			want := data(size)
			packed := pack(t, kind, want)
			if packed == nil {
				t.Log("needs the program bzip2")
				continue
			}
			s, err := NewStream(iotest.HalfReader(bytes.NewReader(packed)), "")
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			for {
				b, err := s.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, b...)
			}
			d, n, err := s.Digest()
			if err != nil || !bytes.Equal(got, want) || n != int64(size) || d != digest.FromBytes(want) {
				t.Errorf("%q %d: %d bytes, %s %d %v", kind, size, len(got), d, n, err)
			}
			if s.Kind() != kind && size > 0 {
				t.Errorf("%q taken for %q", kind, s.Kind())
			}
			s.Close()
			s.Close()
		}
	}
}

func TestBrokenDataIsInvalidAndCutDataIsNot(t *testing.T) {
	for _, kind := range []Kind{Gzip, Zstd, Xz} {
		good := pack(t, kind, data(2*chunkSize))
		bad := bytes.Clone(good)
		for i := len(bad) / 2; i < len(bad)/2+40; i++ {
			bad[i] ^= 0x55
		}
		if err := drain(bytes.NewReader(bad)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s damaged: %v", kind, err)
		}
		if err := drain(bytes.NewReader(good[:len(good)/2])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s cut: %v", kind, err)
		}
		lost := errors.New("connection lost")
		if err := drain(io.MultiReader(bytes.NewReader(good[:len(good)/2]), iotest.ErrReader(lost))); !errors.Is(err, lost) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func drain(r io.Reader) error {
	s, err := NewStream(r, "")
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		if _, err := s.Next(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

func TestCloseEarly(t *testing.T) {
	b := data(30 * chunkSize)
	for range 50 {
		s, err := NewStream(bytes.NewReader(b), digest.SHA512)
		if err != nil {
			t.Fatal(err)
		}
		s.Next()
		s.Next()
		if _, _, err := s.Digest(); err == nil {
			t.Error("a digest of half a stream")
		}
		s.Close()
	}
}

func TestMultistreamGzip(t *testing.T) {
	b := append(pack(t, Gzip, []byte("one")), pack(t, Gzip, []byte("two"))...)
	r, _, err := NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "onetwo" {
		t.Errorf("%q %v", got, err)
	}
}

func TestHugeXzDictionaryIsRefused(t *testing.T) {
	b := pack(t, Xz, []byte("hello"))
	at := bytes.IndexByte(b[14:40], 0x21) + 14
	b[at+2] = 40
	if _, _, err := NewReader(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "dictionary larger") {
		t.Errorf("%v", err)
	}
}

func FuzzReader(f *testing.F) {
	for _, kind := range []Kind{None, Gzip, Zstd, Xz, Bzip2} {
		f.Add(pack(f, kind, data(1000)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, _, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer r.Close()
		io.CopyN(io.Discard, r, 4<<20)
	})
}

func BenchmarkStream(b *testing.B) {
	raw := data(32 << 20)
	for _, kind := range []Kind{None, Gzip, Zstd} {
		packed := pack(b, kind, raw)
		b.Run(fmt.Sprintf("kind=%s", kind), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if err := drain(bytes.NewReader(packed)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("sha256", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			sha256.Sum256(raw)
		}
	})
}

// A few bytes of zstd that stand for a lot are refused, in the middle; what is only well compressed is not.
func TestBombs(t *testing.T) {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	zeros := w.EncodeAll(make([]byte, 16<<20), nil)
	for name, c := range map[string]struct {
		data []byte
		free int64
		want string
	}{
		"bomb":            {zeros, 2 << 20, "times as much"},
		"below the limit": {zeros, 16 << 20, ""},
		"random":          {w.EncodeAll(data(3<<20), nil), 1 << 20, ""},
	} {
		s, err := newStream(bytes.NewReader(c.data), "", c.free)
		if err != nil {
			t.Fatal(err)
		}
		var size int64
		for err == nil {
			var b []byte
			b, err = s.Next()
			size += int64(len(b))
		}
		if c.want == "" && err != io.EOF || c.want != "" && (fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: after %d bytes: %v", name, size, err)
		}
		if c.want != "" && size > c.free+1<<20 {
			t.Errorf("%s: %d bytes were decompressed", name, size)
		}
		s.Close()
	}
}

func TestDigester(t *testing.T) {
	b := data(3<<20 + 17)
	for _, alg := range []digest.Algorithm{"", digest.SHA256, digest.SHA512} {
		for _, step := range []int{1 << 10, 7777, 1 << 20, len(b)} {
			d := NewDigester(alg)
			for rest := b; len(rest) > 0; {
				n := min(step, len(rest))
				d.Write(rest[:n])
				rest = rest[n:]
			}
			want := digest.FromBytes(b)
			if alg == digest.SHA512 {
				want = alg.FromBytes(b)
			}
			if got := d.Digest(); got != want {
				t.Errorf("%s in steps of %d: %s, want %s", alg, step, got, want)
			}
			d.Close()
		}
	}
	NewDigester("").Close()
}

// The compressed form of a layer must be the same from one version of Berth to the next as long as nobody decides otherwise: a push
// from a machine that has lost the source would else give another digest than one from before. A change of the library shows here.
func TestWriterIsTheSameForEver(t *testing.T) {
	want := map[Kind]string{Gzip: "c87c1b1305897d77", Zstd: "efe6c5bc8144fd4c"}
	for kind, w := range want {
		for _, step := range []int{100, 4096, 1 << 20} {
			var out bytes.Buffer
			z, err := NewWriter(&out, kind)
			if err != nil {
				t.Fatal(err)
			}
			for rest := data(2 << 20); len(rest) > 0; {
				n := min(step, len(rest))
				z.Write(rest[:n])
				rest = rest[n:]
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			if got := digest.FromBytes(out.Bytes()).Encoded()[:16]; got != w {
				t.Errorf("%s in steps of %d: %s (%d bytes), want %s", kind, step, got, out.Len(), w)
			}
			rc, k, err := NewReader(&out)
			if err != nil || k != kind {
				t.Fatal(k, err)
			}
			if b, err := io.ReadAll(rc); err != nil || !bytes.Equal(b, data(2<<20)) {
				t.Errorf("%s: not the same when read again: %v", kind, err)
			}
		}
	}
	if _, err := NewWriter(io.Discard, Xz); fault.KindOf(err) != fault.Invalid {
		t.Error(err)
	}
}

// A gzip stream of any length, written in any steps, is what everybody reads; a writer that fails ends it.
func TestGzipWriter(t *testing.T) {
	for _, n := range []int{0, 1, gzipBlock - 1, gzipBlock, gzipBlock + 1, 5*gzipBlock + 12345} {
		b := data(n)
		var out bytes.Buffer
		z := newGzipWriter(&out)
		for rest := b; len(rest) > 0; {
			k := min(len(rest), 70001)
			z.Write(rest[:k])
			rest = rest[k:]
		}
		if err := errors.Join(z.Close(), z.Close()); err != nil {
			t.Fatal(err)
		}
		r, err := stdgzip.NewReader(bytes.NewReader(out.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%d bytes: %d read, %v", n, len(got), err)
		}
		if n > 0 && out.Len() > n/2+1000 {
			t.Errorf("%d bytes become %d", n, out.Len())
		}
	}
	full, block := errors.New("full"), data(gzipBlock)
	for after := range 5 {
		z := newGzipWriter(&failing{after: after, err: full})
		var err error
		for range 20 {
			if _, err = z.Write(block); err != nil {
				break
			}
		}
		if cerr := z.Close(); !errors.Is(cerr, full) || err != nil && !errors.Is(err, full) {
			t.Errorf("after %d writes: %v, %v", after, err, cerr)
		}
	}
}

type failing struct {
	after int
	err   error
}

func (f *failing) Write(p []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, f.err
	}
	return len(p), nil
}

func BenchmarkGzip(b *testing.B) {
	d := data(32 << 20)
	b.SetBytes(int64(len(d)))
	for b.Loop() {
		z, _ := NewWriter(io.Discard, Gzip)
		z.Write(d)
		z.Close()
	}
}
