package records

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	control "github.com/moby/buildkit/api/services/control"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const spans = `{"Name":"build x","SpanContext":{"TraceID":"t1","SpanID":"s1","TraceFlags":"01"},"Parent":{"TraceID":"0","SpanID":"0"},"SpanKind":1,
"StartTime":"2026-01-01T00:00:00Z","EndTime":"2026-01-01T00:00:04Z","Status":{"Code":"Unset"},"Resource":[{"Key":"service.name","Value":{"Type":"STRING","Value":"b"}}]}
{"Name":"RUN make","SpanContext":{"TraceID":"t1","SpanID":"s2","TraceFlags":"01"},"Parent":{"TraceID":"t1","SpanID":"s1"},"SpanKind":3,
"StartTime":"2026-01-01T00:00:02Z","EndTime":"2026-01-01T00:00:04Z","Status":{"Code":"Error","Description":"exit code: 2"},
"Attributes":[{"Key":"cached","Value":{"Type":"BOOL","Value":false}},{"Key":"args","Value":{"Type":"STRINGSLICE","Value":["a","b"]}},{"Key":"cmd","Value":{"Type":"STRING","Value":"GITHUB_TOKEN=abc make"}}],
"Events":[{"Name":"said","Time":"2026-01-01T00:00:03Z","DroppedAttributeCount":1}]}`

func trace(t *testing.T) Trace {
	t.Helper()
	got, err := ReadTrace([]byte(spans))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTrace(t *testing.T) {
	var out bytes.Buffer
	if err := trace(t).Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"0.00s  4.00s     " + strings.Repeat("=", 40), "2.00s  2.00s     " + strings.Repeat(" ", 20) + strings.Repeat("=", 20) + "  RUN make: exit code: 2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	out.Reset()
	if err := PrintJaeger(&out, trace(t)); err != nil {
		t.Fatal(err)
	}
	var j struct{ Data []jaegerTrace }
	if err := json.Unmarshal(out.Bytes(), &j); err != nil || len(j.Data) != 1 || len(j.Data[0].Spans) != 2 {
		t.Fatalf("%v in\n%s", err, &out)
	}
	s := j.Data[0].Spans[1]
	tags := map[string]any{}
	for _, tag := range s.Tags {
		tags[tag.Key] = tag.Value
	}
	if s.Duration != 2e6 || s.References[0].SpanID != "s1" || len(s.Logs) != 1 || tags["cached"] != false || tags["args"] != `["a","b"]` || tags["error"] != true || tags["span.kind"] != "client" {
		t.Errorf("%+v, %v", s, tags)
	}
	if p := j.Data[0].Processes["p0"]; p.ServiceName != "b" {
		t.Errorf("%+v", p)
	}
	for _, bad := range []string{"", "{", `{"StartTime":1}`} {
		if _, err := ReadTrace([]byte(bad)); err == nil {
			t.Errorf("%q is a trace", bad)
		}
	}
}

func TestCompare(t *testing.T) {
	before := trace(t)
	before[1].Name = "RUN test"
	var out bytes.Buffer
	if err := trace(t).Compare(&out, before); err != nil {
		t.Fatal(err)
	}
	if want := "BEFORE  NOW    STEP\n4.00s   4.00s  the whole build\n2.00s   -      RUN test\n-       2.00s  RUN make\n"; out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
}

func TestBundle(t *testing.T) {
	blobs := map[string]string{}
	put := func(mediaType, text string) *control.Descriptor {
		d := digest.FromString(text)
		blobs[d.String()] = text
		return &control.Descriptor{MediaType: mediaType, Digest: d.String(), Size: int64(len(text))}
	}
	image := put(ocispec.MediaTypeImageIndex, "an index")
	record := func(ref string) *control.BuildHistoryRecord {
		return &control.BuildHistoryRecord{
			Ref: ref, Logs: put("log", "a log"), Trace: put("trace", spans), FrontendAttrs: map[string]string{"cache-imports": `[{"Type":"s3","Attrs":{"scope":"a","secret_access_key":"k"}}]`},
			Result: &control.BuildResultInfo{Attestations: []*control.Descriptor{put("application/vnd.in-toto+json", "facts")}, Results: map[int64]*control.Descriptor{0: image}},
		}
	}
	read := func(d ocispec.Descriptor) ([]byte, error) {
		text, ok := blobs[d.Digest.String()]
		if !ok {
			return nil, errors.New("lost")
		}
		return []byte(text), nil
	}
	one := record("one")
	var out bytes.Buffer
	if err := Bundle(&out, []*control.BuildHistoryRecord{one, record("two")}, "linux/amd64", read); err != nil {
		t.Fatal(err)
	}
	if one.Trace.Digest != digest.FromString(spans).String() {
		t.Error("the record itself was changed")
	}
	files := unpack(t, &out)
	all := ""
	for name, text := range files {
		if d, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && digest.FromString(text).Encoded() != d {
			t.Errorf("%s is not its digest's", name)
		}
		all += text
	}
	for _, secret := range []string{"TOKEN=abc", "secret_access_key"} {
		if strings.Contains(all, secret) {
			t.Errorf("%q is in the bundle", secret)
		}
	}
	var top, index ocispec.Index
	var m ocispec.Manifest
	into := func(text string, v any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Fatalf("%v in %q", err, text)
		}
	}
	blob := func(d ocispec.Descriptor) string { return files["blobs/sha256/"+d.Digest.Encoded()] }
	into(files["index.json"], &top)
	into(blob(top.Manifests[0]), &index)
	if len(index.Manifests) != 2 || index.Manifests[1].Annotations[refAnnotation] != "two" {
		t.Errorf("%+v", index)
	}
	into(blob(index.Manifests[0]), &m)
	if m.Config.MediaType != recordType || len(m.Layers) != 4 {
		t.Errorf("%+v", m)
	}
	for _, l := range m.Layers {
		if blob(l) == "" {
			t.Errorf("%s is missing", l.Digest)
		}
		if l.Digest.String() == image.Digest && (l.MediaType != "application/json" || l.Annotations[typeAnnotation] != ocispec.MediaTypeImageIndex) {
			t.Errorf("an image's index would be followed: %+v", l)
		}
	}
	var r struct{ Ref, DefaultPlatform string }
	into(blob(m.Config), &r)
	if r.Ref != "one" || r.DefaultPlatform != "linux/amd64" {
		t.Errorf("%+v", r)
	}
	delete(blobs, image.Digest)
	if err := Bundle(io.Discard, []*control.BuildHistoryRecord{one}, "", read); err == nil {
		t.Error("a bundle without what belongs to it")
	}
}

func unpack(t *testing.T, in io.Reader) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			files[h.Name] = string(text)
		}
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add([]byte(spans))
	f.Fuzz(func(t *testing.T, text []byte) {
		tr, err := ReadTrace(text)
		if err != nil {
			return
		}
		_ = tr.Print(io.Discard)
		_ = tr.Compare(io.Discard, tr)
		_ = PrintJaeger(io.Discard, tr)
	})
}
