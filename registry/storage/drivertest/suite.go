// Package drivertest is the contract of storage.Driver as tests: every driver runs it. It never looks behind the interface.
package drivertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"berth/base/fault"
	"berth/registry/storage"
)

// Place is one place that content lies at. Open opens it; a test closes one driver before it opens the next.
type Place struct {
	Open func(t *testing.T) storage.Driver
}

// Run runs the suite; fresh makes an empty place.
func Run(t *testing.T, fresh func(t *testing.T) Place) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Place)
	}{
		{"values", values}, {"open", open}, {"list", list}, {"keys", keys}, {"upload", upload}, {"bytes", bytesOf},
		{"failing reader", failing}, {"resume", resume}, {"large", large}, {"side by side", sideBySide},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, fresh(t)) })
	}
}

func start(t *testing.T, p Place) storage.Driver {
	t.Helper()
	d := p.Open(t)
	t.Cleanup(func() { d.Close() })
	return d
}

func values(t *testing.T, p Place) {
	d, ctx := start(t, p), t.Context()
	notFound(t, "Read", second(d.Read(ctx, "a/b/c")))
	notFound(t, "Stat", second(d.Stat(ctx, "a/b/c")))
	must(t, d.Write(ctx, "a/b/c", []byte("one")))
	want(t, d, "a/b/c", "one")
	must(t, d.Write(ctx, "a/b/c", []byte("two and more")))
	want(t, d, "a/b/c", "two and more")
	must(t, d.Write(ctx, "a/b/empty", nil))
	want(t, d, "a/b/empty", "")
	e, err := d.Stat(ctx, "a/b/c")
	must(t, err)
	if e.Key != "a/b/c" || e.Size != 12 || e.Modified.IsZero() {
		t.Errorf("Stat gives %+v", e)
	}
	notFound(t, "Stat of what is only the beginning of a key", second(d.Stat(ctx, "a/b")))
	notFound(t, "Read of what is only the beginning of a key", second(d.Read(ctx, "a")))
	must(t, d.Remove(ctx, "a/b/c"))
	notFound(t, "Read", second(d.Read(ctx, "a/b/c")))
	must(t, d.Remove(ctx, "a/b/c"))
	must(t, d.Remove(ctx, "never/was"))
	want(t, d, "a/b/empty", "")
	must(t, d.Remove(ctx, "a/b/empty"))
	must(t, d.Write(ctx, "a/b/c", []byte("again")))
	want(t, d, "a/b/c", "again")
}

func open(t *testing.T, p Place) {
	d, ctx := start(t, p), t.Context()
	notFound(t, "Open", second(d.Open(ctx, "x")))
	must(t, d.Write(ctx, "x", []byte("0123456789")))
	c, err := d.Open(ctx, "x")
	must(t, err)
	defer c.Body.Close()
	if c.Size != 10 || c.Modified.IsZero() {
		t.Errorf("Open gives %+v", c)
	}
	for _, at := range []struct {
		offset int64
		whence int
		want   string
	}{{0, io.SeekStart, "0123456789"}, {4, io.SeekStart, "456789"}, {-3, io.SeekEnd, "789"}, {-2, io.SeekCurrent, "89"}, {0, io.SeekEnd, ""}, {50, io.SeekStart, ""}} {
		if _, err := c.Body.Seek(at.offset, at.whence); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c.Body)
		if string(got) != at.want || err != nil {
			t.Errorf("from %d (%d): %q, %v; want %q", at.offset, at.whence, got, err, at.want)
		}
	}
	if _, err := c.Body.Seek(-1, io.SeekStart); err == nil {
		t.Error("a place before the beginning is accepted")
	}
	if end, err := c.Body.Seek(0, io.SeekEnd); end != 10 || err != nil {
		t.Errorf("the end is at %d, %v", end, err)
	}
}

func list(t *testing.T, p Place) {
	d, ctx := start(t, p), t.Context()
	all := map[string]int64{}
	for _, k := range []string{"r/a/_tags/1", "r/a/_tags/2", "r/a-b/_tags/1", "r/a/b/_tags/1", "r2/a", "q"} {
		must(t, d.Write(ctx, k, []byte(k)))
		all[k] = int64(len(k))
	}
	for i := range 1100 { // more than an object store lists at once
		if testing.Short() && i > 20 {
			break
		}
		k := fmt.Sprintf("many/%04d", i)
		must(t, d.Write(ctx, k, nil))
		all[k] = 0
	}
	for _, prefix := range []string{"r/", "r/a/", "r/a/_tags/", "many/", "none/", "r/a/_tags/1/"} {
		wanted := maps.Clone(all)
		maps.DeleteFunc(wanted, func(k string, _ int64) bool { return !strings.HasPrefix(k, prefix) })
		got := map[string]int64{}
		for e, err := range d.List(ctx, prefix) {
			must(t, err)
			if _, twice := got[e.Key]; twice {
				t.Errorf("%s: %s twice", prefix, e.Key)
			}
			if e.Modified.IsZero() {
				t.Errorf("%s: no time", e.Key)
			}
			got[e.Key] = e.Size
		}
		if !maps.Equal(got, wanted) {
			t.Errorf("%s: %v, want %v", prefix, got, wanted)
		}
	}
	for range d.List(ctx, "r/") {
		break // a listing can be left
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	failed := false
	for _, err := range d.List(gone, "r/") {
		failed = failed || err != nil
	}
	if !failed {
		t.Error("a listing goes on when nobody wants it any more")
	}
}

func keys(t *testing.T, p Place) {
	d, ctx := start(t, p), t.Context()
	for _, k := range []string{"names/team:web", "repositories/a__b/c--d/_tags/v1.2.3_4-rc", "repositories/a/_tags/" + strings.Repeat("x", 128), "blobs/sha512/ab/" + strings.Repeat("ab", 64)} {
		must(t, d.Write(ctx, k, []byte("x")))
		want(t, d, k, "x")
	}
	for _, k := range []string{"../escaped", "a/../../escaped", "/etc/berth-test"} {
		if err := d.Write(ctx, k, []byte("x")); err == nil {
			t.Errorf("key %q is accepted", k)
		}
	}
}

func upload(t *testing.T, p Place) {
	d, ctx := start(t, p), t.Context()
	notFound(t, "ResumeUpload", second(d.ResumeUpload(ctx, "0123")))
	u, err := d.StartUpload(ctx, "0123")
	must(t, err)
	for i, part := range []string{"hello", "", ", ", "world"} {
		n, err := u.Append(ctx, strings.NewReader(part))
		if n != int64(len(part)) || err != nil {
			t.Fatalf("part %d: %d, %v", i, n, err)
		}
	}
	if u.Size() != 12 {
		t.Errorf("size %d", u.Size())
	}
	ids := uploads(t, d)
	if !slices.Equal(ids, []string{"0123"}) {
		t.Errorf("uploads %v", ids)
	}
	must(t, u.Finish(ctx, "blobs/x"))
	want(t, d, "blobs/x", "hello, world")
	if ids := uploads(t, d); len(ids) != 0 {
		t.Errorf("uploads %v after the end", ids)
	}
	notFound(t, "ResumeUpload", second(d.ResumeUpload(ctx, "0123")))

	empty, err := d.StartUpload(ctx, "4567")
	must(t, err)
	must(t, empty.Finish(ctx, "blobs/empty"))
	want(t, d, "blobs/empty", "")

	twice, err := d.StartUpload(ctx, "89ab")
	must(t, err)
	_, err = twice.Append(ctx, strings.NewReader("hello, world"))
	must(t, err)
	must(t, twice.Finish(ctx, "blobs/x"))
	want(t, d, "blobs/x", "hello, world")

	dropped, err := d.StartUpload(ctx, "cdef")
	must(t, err)
	_, err = dropped.Append(ctx, strings.NewReader("x"))
	must(t, err)
	must(t, dropped.Cancel(ctx))
	if ids := uploads(t, d); len(ids) != 0 {
		t.Errorf("uploads %v after Cancel", ids)
	}
}

func bytesOf(t *testing.T, p Place) {
	d, ctx := start(t, p), t.Context()
	u, err := d.StartUpload(ctx, "01")
	must(t, err)
	_, err = u.Append(ctx, strings.NewReader("some bytes"))
	must(t, err)
	r, err := u.Bytes(ctx)
	must(t, err)
	got, err := io.ReadAll(r)
	r.Close()
	if string(got) != "some bytes" || err != nil {
		t.Errorf("Bytes gives %q, %v", got, err)
	}
	must(t, u.Finish(ctx, "b/1"))
	want(t, d, "b/1", "some bytes")
}

func failing(t *testing.T, p Place) {
	d, ctx := start(t, p), t.Context()
	u, err := d.StartUpload(ctx, "01")
	must(t, err)
	broken := errors.New("the client went away")
	n, err := u.Append(ctx, io.MultiReader(strings.NewReader("half"), &failingReader{broken}))
	if n != 4 || !errors.Is(err, broken) || u.Size() != 4 {
		t.Fatalf("%d taken, size %d, %v", n, u.Size(), err)
	}
	_, err = u.Append(ctx, strings.NewReader(" and half"))
	must(t, err)
	must(t, u.Finish(ctx, "b/1"))
	want(t, d, "b/1", "half and half")
}

type failingReader struct{ err error }

func (r *failingReader) Read([]byte) (int, error) { return 0, r.err }

func resume(t *testing.T, p Place) {
	d, ctx := p.Open(t), t.Context()
	u, err := d.StartUpload(ctx, "01")
	must(t, err)
	must(t, u.Save(ctx, []byte("state 0\nwith a second line")))
	_, err = u.Append(ctx, strings.NewReader("one"))
	must(t, err)
	must(t, u.Save(ctx, []byte("state 1")))
	must(t, d.Close())

	d = p.Open(t)
	u, err = d.ResumeUpload(ctx, "01")
	must(t, err)
	if s, n := u.State(); string(s) != "state 1" || n != 3 || u.Size() != 3 {
		t.Errorf("resumed with %q at %d of %d", s, n, u.Size())
	}
	_, err = u.Append(ctx, strings.NewReader(", two"))
	must(t, err)
	must(t, u.Save(ctx, []byte("state 2")))
	must(t, d.Close())

	d = start(t, p)
	u, err = d.ResumeUpload(ctx, "01")
	must(t, err)
	must(t, u.Finish(ctx, "b/1"))
	want(t, d, "b/1", "one, two")
}

// large goes over every part size that an object store may have.
func large(t *testing.T, p Place) {
	d, ctx := start(t, p), t.Context()
	u, err := d.StartUpload(ctx, "01")
	must(t, err)
	content := make([]byte, 23<<20+17)
	rand.Read(content)
	for _, part := range [][]byte{content[:100], content[100 : 6<<20], content[6<<20 : 6<<20+1], content[6<<20+1:]} {
		n, err := u.Append(ctx, bytes.NewReader(part))
		if n != int64(len(part)) || err != nil {
			t.Fatal(n, err)
		}
		must(t, u.Save(ctx, []byte("s")))
	}
	must(t, u.Finish(ctx, "blobs/large"))
	c, err := d.Open(ctx, "blobs/large")
	must(t, err)
	defer c.Body.Close()
	got, err := io.ReadAll(c.Body)
	if !bytes.Equal(got, content) || err != nil {
		t.Errorf("%d bytes come back of %d, or others (%v)", len(got), len(content), err)
	}
	if _, err := d.Read(ctx, "blobs/large"); err == nil {
		t.Error("Read gives a value that is not small")
	}
}

func sideBySide(t *testing.T, p Place) {
	d, ctx := start(t, p), t.Context()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				// All write and remove below the same directories.
				key := fmt.Sprintf("deep/er/%d/x", i%4)
				if err := d.Write(ctx, key, []byte("same")); err != nil {
					t.Error(err)
				}
				if v, err := d.Read(ctx, key); err == nil && string(v) != "same" || err != nil && !fault.Is(err, fault.NotFound) {
					t.Errorf("%q, %v", v, err)
				}
				if err := d.Remove(ctx, key); err != nil {
					t.Error(err)
				}
				_ = j
			}
		})
	}
	wg.Wait()
}

func uploads(t *testing.T, d storage.Driver) []string {
	t.Helper()
	var ids []string
	for e, err := range d.Uploads(t.Context()) {
		must(t, err)
		ids = append(ids, e.Key)
	}
	return ids
}

func want(t *testing.T, d storage.Driver, key, value string) {
	t.Helper()
	got, err := d.Read(t.Context(), key)
	if err != nil || string(got) != value {
		t.Errorf("%s is %q (%v), want %q", key, got, err, value)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func notFound(t *testing.T, what string, err error) {
	t.Helper()
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("%s: %v, want NotFound", what, err)
	}
}

func second[T any](_ T, err error) error { return err }
