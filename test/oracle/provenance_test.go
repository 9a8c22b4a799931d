package oracle

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
)

// provenanceDockerfile has a source of each kind that needs no registry, secrets, an argument, a stage that is not in the result, and a base that is
// only looked up.
const provenanceDockerfile = `FROM busybox AS made
ARG WHAT=nothing
RUN --mount=type=secret,id=one --mount=type=secret,id=must,required --network=none echo $WHAT > /made
FROM configured AS unused
RUN echo unused > /unused
FROM bare
COPY --from=made /made /
COPY hello /
ADD $HTTP/file.txt /
LABEL x=y
`

// TestProvenance compares what both attest of a build, field for field.
func TestProvenance(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: builds mount overlay file systems")
	}
	if ociRuntime() == "" {
		t.Skip("needs runc or crun: BuildKit's steps run in it")
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	web := newWeb(t)
	b := newBases(t)
	buildkit, berth := startBuildKit(t), startBerth(t)
	dir := t.TempDir()
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.ReplaceAll(provenanceDockerfile, "$HTTP", web)
	write(dir, "Dockerfile", text)
	write(dir, "hello", "hello\n")
	other := t.TempDir()
	write(other, "Dockerfile", text)
	repo := t.TempDir()
	write(repo, "Dockerfile", text)
	write(repo, "hello", "hello\n")
	git := exec.Command("sh", "-ec", "git init -q -b main . && git add . && git commit -q -m x && git update-server-info")
	git.Dir = repo
	git.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@x")
	if out, err := git.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	served := httptest.NewServer(http.FileServer(http.Dir(repo)))
	defer served.Close()
	remote := served.URL + "/.git#main"

	for name, attrs := range map[string]map[string]string{
		"max":               {"attest:provenance": "mode=max"},
		"min":               {"attest:provenance": "mode=min"},
		"v0.2":              {"attest:provenance": "mode=max,version=v0.2"},
		"v0.2 min":          {"attest:provenance": "mode=min,version=v0.2"},
		"reproducible":      {"attest:provenance": "reproducible=true,builder-id=https://example.com/me", "build-arg:WHAT": "something", "label:a": "b"},
		"an argument, min":  {"attest:provenance": "mode=min", "build-arg:WHAT": "something", "vcs:source": "https://u:p@example.com/x", "vcs:revision": "abc"},
		"two platforms":     {"attest:provenance": "mode=max", "platform": "linux/amd64,linux/arm64", "target": "", "filename": "Dockerfile.files"},
		"git":               {"attest:provenance": "mode=max", "context": remote},
		"git, min":          {"attest:provenance": "mode=min,version=v0.2", "context": remote},
		"another context":   {"attest:provenance": "mode=max", "context": remote, "dockerfilekey": "other"},
		"a named context":   {"attest:provenance": "mode=max", "context:made": "local:other", "filename": "Dockerfile.files"},
		"behind a frontend": {"attest:provenance": "mode=max", "build-arg:BUILDKIT_SYNTAX": "dockerfile.v0", "cmdline": "dockerfile.v0"},
	} {
		t.Run(name, func(t *testing.T) {
			write(dir, "Dockerfile.files", "FROM scratch AS made\nCOPY hello /made\nFROM bare\nCOPY --from=made / /\nCOPY hello /\n")
			write(other, "Dockerfile.files", "FROM scratch\n")
			write(other, "hello", "other")
			docs := func(bk *client.Client) []string {
				list, err := attested(t, bk, b, dir, other, attrs)
				if err != nil {
					t.Fatal(err)
				}
				return list
			}
			want, got := docs(buildkit), docs(berth)
			if len(want) == 0 {
				t.Fatal("BuildKit attests nothing")
			}
			for _, x := range want {
				if !slices.Contains(got, x) {
					t.Errorf("- %s", x)
				}
			}
			for _, x := range got {
				// A step may have made a layer that is blob for blob another one's, which Berth notices.
				if !slices.Contains(want, x) && !strings.Contains(x, "buildkit_metadata.layers.") && !strings.Contains(x, "#metadata.layers.") {
					t.Errorf("+ %s", x)
				}
			}
		})
	}
}

// TestProvenanceOfFiles compares the documents that lie beside files.
func TestProvenanceOfFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: builds mount overlay file systems")
	}
	if ociRuntime() == "" {
		t.Skip("needs runc or crun: BuildKit's steps run in it")
	}
	buildkit, berth := startBuildKit(t), startBerth(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"Dockerfile": "FROM scratch\nCOPY hello sub/\nCOPY hello /\n", "hello": "hello\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct{ attrs, export map[string]string }{
		"max":           {map[string]string{"attest:provenance": "mode=max"}, nil},
		"min v0.2":      {map[string]string{"attest:provenance": "mode=min,version=v0.2"}, nil},
		"inline only":   {map[string]string{"attest:provenance": "inline-only=true"}, nil},
		"a name":        {map[string]string{"attest:provenance": "mode=min,filename=made.json"}, nil},
		"a prefix":      {map[string]string{"attest:provenance": "mode=min"}, map[string]string{"attestation-prefix": "about-"}},
		"two platforms": {map[string]string{"attest:provenance": "mode=min", "platform": "linux/amd64,linux/arm64"}, nil},
		"not split":     {map[string]string{"attest:provenance": "mode=min", "platform": "linux/amd64"}, map[string]string{"platform-split": "true"}},
	} {
		t.Run(name, func(t *testing.T) {
			list := func(bk *client.Client) (lines []string) {
				out := t.TempDir()
				context_, err := fsutil.NewFS(dir)
				if err != nil {
					t.Fatal(err)
				}
				_, err = bk.Solve(t.Context(), nil, client.SolveOpt{
					Frontend: "dockerfile.v0", FrontendAttrs: tt.attrs, LocalMounts: map[string]fsutil.FS{"context": context_, "dockerfile": context_},
					Exports: []client.ExportEntry{{Type: client.ExporterLocal, Attrs: tt.export, OutputDir: out}},
				}, nil)
				if err != nil {
					t.Fatal(err)
				}
				err = filepath.WalkDir(out, func(p string, d os.DirEntry, err error) error {
					rel, _ := filepath.Rel(out, p)
					if err != nil || d.IsDir() {
						return err
					}
					lines = append(lines, rel)
					if !strings.HasSuffix(rel, ".json") {
						return nil
					}
					raw, err := os.ReadFile(p)
					if err != nil {
						return err
					}
					var doc any
					if err := json.Unmarshal(raw, &doc); err != nil {
						return err
					}
					for _, l := range flat(rel, doc) {
						lines = append(lines, steady(l))
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(lines)
				return slices.Compact(lines)
			}
			want, got := list(buildkit), list(berth)
			for _, x := range want {
				if !slices.Contains(got, x) {
					t.Errorf("- %s", x)
				}
			}
			for _, x := range got {
				if !slices.Contains(want, x) && !strings.Contains(x, "metadata.layers.") {
					t.Errorf("+ %s", x)
				}
			}
		})
	}
}

// attested builds a context and gives the provenance that is in the image, a value a line.
func attested(t *testing.T, bk *client.Client, b *bases, dir, other string, attrs map[string]string) (lines []string, err error) {
	t.Helper()
	result := filepath.Join(t.TempDir(), "image.tar")
	mounts := map[string]fsutil.FS{}
	for name, d := range map[string]string{"context": dir, "dockerfile": dir, "other": other} {
		if mounts[name], err = fsutil.NewFS(d); err != nil {
			return nil, err
		}
	}
	opt := client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: maps.Clone(b.attrs), LocalMounts: mounts, OCIStores: map[string]content.Store{storeName: b},
		AllowedEntitlements: []string{"network.host"},
		Exports:             []client.ExportEntry{{Type: client.ExporterOCI, Output: func(map[string]string) (io.WriteCloser, error) { return os.Create(result) }}},
		Session:             []session.Attachable{secretsprovider.FromMap(map[string][]byte{"one": []byte("1"), "must": []byte("2")})},
	}
	maps.Copy(opt.FrontendAttrs, attrs)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := bk.Solve(ctx, nil, opt, nil); err != nil {
		return nil, err
	}
	f, err := os.Open(result)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	blobs := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if blobs[path.Base(h.Name)], err = io.ReadAll(r); err != nil {
			return nil, err
		}
	}
	n := 0
	for _, raw := range blobs {
		var m ocispecs.Manifest
		if json.Unmarshal(raw, &m) != nil || len(m.Layers) == 0 || m.Layers[0].MediaType != "application/vnd.in-toto+json" {
			continue
		}
		n++
		for _, l := range m.Layers {
			var doc map[string]any
			if err := json.Unmarshal(blobs[l.Digest.Encoded()], &doc); err != nil {
				return nil, err
			}
			lines = append(lines, flat(l.Annotations["in-toto.io/predicate-type"], doc["predicate"])...)
		}
	}
	lines = append(lines, fmt.Sprintf("%d manifests", n))
	for i, l := range lines {
		lines[i] = steady(l)
	}
	slices.Sort(lines)
	return slices.Compact(lines), nil
}

var (
	whenOrWho = regexp.MustCompile(`(?i)((started|finished)on|invocationid|buildInvocationId) .*`)
	mapped    = regexp.MustCompile(`digestMapping\.sha256:[0-9a-f]{64}`)
	blobNames = regexp.MustCompile(`(layers\..*(digest|size|mediaType)) .*`)
	sessions  = regexp.MustCompile(`(attrs\.oci\.session) .*`)
)

// steady takes out of a line what is another one with each build: times, ids, and digests of steps that hold a session's. The blobs of
// layers are compressed anew by Berth (docs/differences.md). A release of the language is called by its number, not "-dev".
func steady(l string) string {
	l = whenOrWho.ReplaceAllString(l, "$1 …")
	l = mapped.ReplaceAllString(l, "digestMapping.…")
	l = sessions.ReplaceAllString(l, "$1 …")
	l = strings.Replace(l, `-dev"`, `"`, 1)
	return blobNames.ReplaceAllString(l, "$1 …")
}
