package oracle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/solver/errdefs"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
)

// outcome is what a build came to, in lines that can be compared.
type outcome struct {
	err      error
	at       []string // where in the Dockerfile the error is shown
	warnings []string // of the linter
	config   []string
	tree     []string
	log      string
	ran      []string // steps that were not cached; what only asks for sources is none
}

// both has one case built by both, with dir as its context.
func (c *testCase) both(t *testing.T, buildkit, berth *client.Client, b *bases, dir string) (want, got *outcome) {
	t.Helper()
	var all sync.WaitGroup
	all.Go(func() { want = c.build(t, buildkit, b, dir) })
	all.Go(func() { got = c.build(t, berth, b, dir) })
	all.Wait()
	return want, got
}

// build has one case built, with dir as its context. It may run beside others.
func (c *testCase) build(t *testing.T, bk *client.Client, b *bases, dir string) *outcome {
	context_, err := fsutil.NewFS(dir)
	if err != nil {
		return &outcome{err: err}
	}
	result := filepath.Join(t.TempDir(), "image.tar")
	opt := client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: maps.Clone(b.attrs), LocalMounts: map[string]fsutil.FS{"context": context_, "dockerfile": context_},
		OCIStores:           map[string]content.Store{storeName: b},
		AllowedEntitlements: []string{"network.host", "security.insecure"},
		Exports: []client.ExportEntry{{Type: client.ExporterOCI, Attrs: map[string]string{"compression": "uncompressed"}, Output: func(map[string]string) (io.WriteCloser, error) {
			return os.Create(result)
		}}},
		Session: []session.Attachable{secretsprovider.FromMap(map[string][]byte{"one": []byte("secret one\n"), "token": []byte("t0ken")})},
	}
	opt.FrontendAttrs["filename"] = "Dockerfile." + c.name
	opt.FrontendAttrs["force-network-mode"] = "host"
	for k, v := range c.attrs {
		if name, ok := strings.CutPrefix(v, "local:"); ok {
			if opt.LocalMounts[name], err = fsutil.NewFS(filepath.Join(dir, name)); err != nil {
				return &outcome{err: err}
			}
		}
		opt.FrontendAttrs[k] = v
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	o := &outcome{}
	var log strings.Builder
	cached := map[string]bool{}
	status := make(chan *client.SolveStatus)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := range status {
			for _, l := range s.Logs {
				log.Write(l.Data)
			}
			for _, v := range s.Vertexes {
				if v.Completed != nil && !strings.HasPrefix(v.Name, "[internal]") && !strings.HasPrefix(v.Name, "[context ") && !strings.Contains(v.Name, "exporting") {
					cached[v.Name] = v.Cached
				}
			}
			for _, w := range s.Warnings {
				o.warnings = append(o.warnings, fmt.Sprintf("%s %v", w.Short, w.Range))
			}
		}
	}()
	_, o.err = bk.Solve(ctx, nil, opt, status)
	<-done
	o.log = log.String()
	for name, was := range cached {
		if !was {
			o.ran = append(o.ran, name)
		}
	}
	slices.Sort(o.ran)
	slices.Sort(o.warnings)
	o.warnings = slices.Compact(o.warnings)
	for _, s := range errdefs.Sources(o.err) {
		if s.Info != nil {
			o.at = append(o.at, fmt.Sprintf("%s %v", s.Info.Filename, s.Ranges))
		}
	}
	if o.err == nil {
		if err := o.read(result); err != nil {
			o.err = fmt.Errorf("read the image: %w", err)
		}
	}
	return o
}

// read takes an OCI archive apart.
func (o *outcome) read(archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	blobs := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		blobs[path.Base(h.Name)] = b
	}
	var index ocispecs.Index
	if err := json.Unmarshal(blobs["index.json"], &index); err != nil {
		return err
	}
	for _, d := range index.Manifests {
		if err := o.manifest(blobs, d); err != nil {
			return err
		}
	}
	return nil
}

func (o *outcome) manifest(blobs map[string][]byte, d ocispecs.Descriptor) error {
	if strings.Contains(d.MediaType, "index") || strings.Contains(d.MediaType, "list") {
		var index ocispecs.Index
		if err := json.Unmarshal(blobs[d.Digest.Encoded()], &index); err != nil {
			return err
		}
		for _, d := range index.Manifests {
			if err := o.manifest(blobs, d); err != nil {
				return err
			}
		}
		return nil
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(blobs[d.Digest.Encoded()], &m); err != nil {
		return err
	}
	if d.Platform != nil {
		o.config = append(o.config, fmt.Sprintf("platform %s/%s/%s", d.Platform.OS, d.Platform.Architecture, d.Platform.Variant))
	}
	if err := o.configuration(blobs[m.Config.Digest.Encoded()]); err != nil {
		return err
	}
	files := map[string]string{}
	for _, l := range m.Layers {
		if err := lay(files, blobs[l.Digest.Encoded()]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		o.tree = append(o.tree, name+" "+files[name])
	}
	return nil
}

// configuration writes a configuration's values, one a line, without times and digests of layers.
func (o *outcome) configuration(text []byte) error {
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	delete(v, "created")
	if fs, ok := v["rootfs"].(map[string]any); ok {
		if ids, ok := fs["diff_ids"].([]any); ok {
			fs["diff_ids"] = len(ids)
		}
	}
	if list, ok := v["history"].([]any); ok {
		for _, h := range list {
			if m, ok := h.(map[string]any); ok {
				delete(m, "created")
			}
		}
	}
	o.config = append(o.config, flat("", v)...)
	return nil
}

func flat(name string, v any) []string {
	switch v := v.(type) {
	case map[string]any:
		var list []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			list = append(list, flat(name+"."+k, v[k])...)
		}
		return append(list, name+" {}")
	case []any:
		var list []string
		for i, x := range v {
			list = append(list, flat(fmt.Sprintf("%s[%d]", name, i), x)...)
		}
		return append(list, fmt.Sprintf("%s [%d]", name, len(v)))
	}
	b, _ := json.Marshal(v)
	return []string{name + " " + string(b)}
}

// started is when the test began: what is newer was made by a build.
var started = time.Now().Add(-time.Minute)

// lay lays a layer over the files so far.
func lay(files map[string]string, layer []byte) error {
	added := map[string]bool{}
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean("/" + h.Name)
		base := path.Base(name)
		if gone, ok := strings.CutPrefix(base, ".wh."); ok {
			target := path.Join(path.Dir(name), gone)
			if base == ".wh..wh..opq" {
				target = path.Dir(name) + "/"
			}
			for f := range files {
				if (f == target || strings.HasPrefix(f, strings.TrimSuffix(target, "/")+"/")) && !added[f] {
					delete(files, f)
				}
			}
			continue
		}
		if h.Typeflag != tar.TypeDir {
			for f := range files {
				if strings.HasPrefix(f, name+"/") {
					delete(files, f)
				}
			}
		}
		if files[name], err = describe(files, h, r); err != nil {
			return err
		}
		added[name] = true
	}
}

func describe(files map[string]string, h *tar.Header, r io.Reader) (string, error) {
	if h.Typeflag == tar.TypeLink {
		return files[path.Clean("/"+h.Linkname)], nil
	}
	when := ""
	if h.Typeflag != tar.TypeDir && h.ModTime.Before(started) {
		when = h.ModTime.UTC().Format(time.DateTime)
	}
	var attrs []string
	for k, v := range h.PAXRecords {
		if strings.HasPrefix(k, "SCHILY.xattr.") {
			attrs = append(attrs, fmt.Sprintf("%s=%q", k, v))
		}
	}
	slices.Sort(attrs)
	sum := sha256.New()
	n, err := io.Copy(sum, r)
	if err != nil {
		return "", err
	}
	body := ""
	if h.Typeflag == tar.TypeReg {
		body = fmt.Sprintf("%d bytes %x", n, sum.Sum(nil)[:6])
	}
	mode := h.Mode
	if h.Typeflag == tar.TypeSymlink {
		mode = 0o777
	}
	return strings.TrimSpace(fmt.Sprintf("%c %o %d:%d %s %s %s %s", h.Typeflag, mode, h.Uid, h.Gid, h.Linkname, body, when, strings.Join(attrs, " "))), nil
}

// words are what an error ends with: what is before it says on the way to what it happened.
func words(err error) string {
	if err == nil {
		return ""
	}
	text := strings.Split(err.Error(), ": ")
	return text[len(text)-1]
}

// differences lists what two outcomes differ in: "-" is BuildKit's, "+" Berth's.
func (c *testCase) differences(want, got *outcome) []string {
	if (want.err == nil) != (got.err == nil) || !c.ownWords && words(want.err) != words(got.err) {
		return []string{fmt.Sprintf("- error: %v", want.err), fmt.Sprintf("+ error: %v", got.err), "+ log: " + got.log}
	}
	var list []string
	for _, part := range []struct {
		name string
		a, b []string
	}{{"position", want.at, got.at}, {"warning", want.warnings, got.warnings}, {"config", want.config, got.config}, {"tree", want.tree, got.tree}} {
		for _, x := range part.a {
			if !slices.Contains(part.b, x) {
				list = append(list, "- "+part.name+": "+x)
			}
		}
		for _, x := range part.b {
			if !slices.Contains(part.a, x) {
				list = append(list, "+ "+part.name+": "+x)
			}
		}
		if len(list) == 0 && !slices.Equal(part.a, part.b) {
			list = append(list, part.name+": another order")
		}
	}
	return list
}
