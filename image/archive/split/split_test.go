package split

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/vbatts/tar-split/tar/storage"

	"berth/base/fault"
)

type memory struct{ *strings.Reader }

func (memory) Close() error { return nil }

func files(m map[string]string) func(int, string) (File, error) {
	return func(_ int, name string) (File, error) {
		s, ok := m[name]
		if !ok {
			return nil, fmt.Errorf("no file %q", name)
		}
		return memory{strings.NewReader(s)}, nil
	}
}

func write(t testing.TB, f func(w *Writer)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	f(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	big := strings.Repeat("segment", 30000)
	odd := "od\xffd \"name\"\n"
	data := write(t, func(w *Writer) {
		w.Bytes([]byte("head"))
		w.Bytes([]byte("er"))
		if p, _ := w.File("a", 0, 5); p != 1 {
			t.Errorf("position %d", p)
		}
		w.File(odd, 0, 3)
		w.Bytes([]byte(big))
		w.File("sparse", 0, 2)
		w.File("sparse", 6, 2)
	})
	var out bytes.Buffer
	err := Rebuild(context.Background(), bytes.NewReader(data), files(map[string]string{"a": "hello", odd: "abc", "sparse": "01234567"}), &out)
	if err != nil {
		t.Fatal(err)
	}
	if want := "header" + "hello" + "abc" + big + "01" + "67"; out.String() != want {
		t.Errorf("got %.60q…", out.String())
	}
}

// The lines must stay readable for tar-split itself.
func TestFormatIsTarSplits(t *testing.T) {
	data := write(t, func(w *Writer) {
		w.Bytes([]byte("x"))
		w.File("a", 0, 5)
	})
	zr, _ := zstd.NewReader(bytes.NewReader(data))
	defer zr.Close()
	u := storage.NewJSONUnpacker(zr)
	e, err := u.Next()
	if err != nil || e.Type != storage.SegmentType || string(e.Payload) != "x" {
		t.Errorf("%+v %v", e, err)
	}
	e, err = u.Next()
	if err != nil || e.Type != storage.FileType || e.GetName() != "a" || e.Size != 5 || e.Position != 1 {
		t.Errorf("%+v %v", e, err)
	}
}

func TestDamage(t *testing.T) {
	good := write(t, func(w *Writer) { w.Bytes([]byte("x")); w.File("a", 0, 5) })
	for name, c := range map[string]struct {
		data  []byte
		files map[string]string
	}{
		"file too short": {good, map[string]string{"a": "abc"}},
		"file missing":   {good, nil},
		"not zstd":       {[]byte("hello"), nil},
		"cut":            {good[:len(good)-4], map[string]string{"a": "abcde"}},
	} {
		if err := Rebuild(context.Background(), bytes.NewReader(c.data), files(c.files), io.Discard); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Rebuild(ctx, bytes.NewReader(good), files(nil), io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzRebuild(f *testing.F) {
	for _, s := range []string{
		`{"type":2,"payload":"eA==","position":0}` + "\n" + `{"type":1,"name":"a","size":3,"payload":null,"position":1}`,
		`{"type":1,"name":"a","size":-3,"offset":-1,"payload":null,"position":0}`, `{"type":3,"position":0}`, `{}`, `[`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, lines []byte) {
		zw, _ := zstd.NewWriter(nil)
		defer zw.Close()
		var out bytes.Buffer
		err := Rebuild(context.Background(), bytes.NewReader(zw.EncodeAll(lines, nil)), files(map[string]string{"a": "hello"}), &out)
		if err != nil && fault.KindOf(err) != fault.Internal {
			t.Fatalf("%v", err)
		}
	})
}
