package attest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	types "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"

	"berth/base/ref"
	"berth/build/graph"
	"berth/build/solver"
	"berth/kernel/tree"
)

func TestParse(t *testing.T) {
	w, err := Parse(map[string]string{"attest:provenance": "mode=min,inline-only=true,builder-id=https://x/y", "attest:sbom": "", "filename": "Dockerfile"})
	if err != nil || !w.Provenance.Min || !w.Provenance.InlineOnly || w.Provenance.Version != "v1" || w.Provenance.BuilderID != "https://x/y" || w.SBOM.Generator != "" {
		t.Errorf("%+v %+v %v", w.Provenance, w.SBOM, err)
	}
	if got := w.Frontend(map[string]string{"attest:sbom": "", "attest:provenance": "x", "target": "a"}); len(got) != 2 || got["target"] != "a" {
		t.Errorf("%v", got)
	}
	w, err = Parse(map[string]string{"build-arg:BUILDKIT_ATTEST_SBOM": "generator=scanner:1,KEY=v"})
	if err != nil || w.SBOM.Generator != "scanner:1" || w.SBOM.Params["KEY"] != "v" {
		t.Errorf("%+v %v", w.SBOM, err)
	}
	for _, bad := range []string{"mode=some", "version=v7", "reproducible=perhaps"} {
		if _, err := Parse(map[string]string{"attest:provenance": bad}); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if _, err := Parse(map[string]string{"attest:oath": ""}); err == nil {
		t.Error("an unknown type is taken")
	}
}

func op(t *testing.T, o *pb.Op) []byte {
	t.Helper()
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func facts(t *testing.T) *Facts {
	src := op(t, &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "local://context", Attrs: map[string]string{pb.AttrLocalSessionID: "session-of-today", pb.AttrLocalUniqueID: "u"}}}})
	exec := op(t, &pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromBytes(src))}}, Op: &pb.Op_Exec{Exec: &pb.ExecOp{
		Meta: &pb.Meta{Args: []string{"make"}}, Mounts: []*pb.Mount{{MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "token"}}},
	}}})
	last := op(t, &pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromBytes(exec))}}})
	f := &Facts{
		BuildID: "b1", Started: time.Unix(1, 0).UTC(), Finished: time.Unix(2, 0).UTC(), Frontend: "dockerfile.v0",
		Args: map[string]string{
			"context": "https://me:hunter2@example.com/repo.git#main", "filename": "Dockerfile", "build-arg:A": "b", "target": "x", "platform": "linux/arm64", "attest:sbom": "",
			"vcs:source": "https://me:hunter2@example.com/repo.git", "build-arg:HTTP_PROXY": "http://me:hunter2@proxy:1",
		},
		Definition: &pb.Definition{Def: [][]byte{src, exec, last}, Source: &pb.Source{
			Infos:     []*pb.SourceInfo{{Filename: "Dockerfile", Data: []byte("FROM scratch")}},
			Locations: map[string]*pb.Locations{string(digest.FromBytes(exec)): {}},
		}},
	}
	f.Add(solver.Provenance{
		Materials: []solver.Material{
			{Kind: "docker-image", URI: "docker.io/library/alpine:3", Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}, Digest: digest.FromString("a")},
			{Kind: "docker-image", URI: "docker.io/library/alpine:3", Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}, Digest: digest.FromString("a")},
			{Kind: "git", URI: "https://example.com/repo.git", Digest: digest.Digest("sha1:" + strings.Repeat("c", 40))},
			{Kind: "https", URI: "https://example.com/x.tar", Digest: digest.FromString("x")},
		},
		Steps: []solver.Outcome{{Vertex: &graph.Vertex{Op: &pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{
			Network: pb.NetMode_NONE, Mounts: []*pb.Mount{{MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "token"}}},
		}}}}}},
	})
	return f
}

func TestProvenance(t *testing.T) {
	kind, raw, err := facts(t).Predicate(ProvenanceOptions{Version: "v1", BuilderID: "https://x"})
	if err != nil || kind != "https://slsa.dev/provenance/v1" {
		t.Fatal(kind, err)
	}
	if strings.Contains(string(raw), "hunter2") || strings.Contains(string(raw), "session-of-today") {
		t.Errorf("%s", raw)
	}
	var p types.ProvenancePredicateSLSA1
	if err := json.Unmarshal(raw, &p); err != nil {
		t.Fatal(err)
	}
	if len(p.BuildDefinition.ResolvedDependencies) != 3 || p.BuildDefinition.ResolvedDependencies[0].URI != "pkg:docker/alpine@3?platform=linux%2Famd64" {
		t.Errorf("%+v", p.BuildDefinition.ResolvedDependencies)
	}
	req := p.BuildDefinition.ExternalParameters.Request
	if req.Args["build-arg:A"] != "b" || req.Args["platform"] != "" || len(req.Secrets) != 1 || req.Secrets[0].ID != "token" {
		t.Errorf("%+v", req)
	}
	if c := p.BuildDefinition.ExternalParameters.ConfigSource; c.Path != "Dockerfile" || !strings.Contains(c.URI, "example.com") {
		t.Errorf("%+v", c)
	}
	if bc := p.BuildDefinition.InternalParameters.BuildConfig; len(bc.Definition) != 3 || bc.Definition[1].Inputs[0] != "step0:0" {
		t.Errorf("%+v", bc)
	}
	meta := p.RunDetails.Metadata
	if !meta.Hermetic || !meta.Completeness.Request || !meta.Completeness.ResolvedDependencies || meta.BuildKitMetadata.Source.Infos[0].Filename != "Dockerfile" ||
		meta.BuildKitMetadata.Source.Locations["step1"] == nil || meta.InvocationID != "b1" {
		t.Errorf("%+v", meta)
	}
	_, again, err := facts(t).Predicate(ProvenanceOptions{Version: "v1", BuilderID: "https://x"})
	if err != nil || string(again) != string(raw) {
		t.Error("the same facts give another document")
	}
}

// TestBundleProvenance tells of a bundle beside the repository that it stands in for.
func TestBundleProvenance(t *testing.T) {
	f := &Facts{}
	d, commit := digest.FromString("bundle"), strings.Repeat("c", 40)
	f.Add(solver.Provenance{
		Materials: []solver.Material{
			{Kind: "git", URI: "https://example.com/repo.git#main", Digest: digest.Digest("sha1:" + commit), Attrs: map[string]string{"bundle": "docker-image+blob://example.com/bundles@" + string(d)}},
			{Kind: "git", URI: "https://example.com/repo.git#main", Digest: digest.Digest("sha1:" + commit)},
		},
		Steps: []solver.Outcome{{Vertex: &graph.Vertex{Op: &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{
			Identifier: "git://example.com/repo.git#main", Attrs: map[string]string{pb.AttrAuthTokenSecret: "GIT_AUTH_TOKEN", pb.AttrMountSSHSock: "default"},
		}}}}}},
	})
	_, raw, err := f.Predicate(ProvenanceOptions{Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	var p types.ProvenancePredicateSLSA1
	if err := json.Unmarshal(raw, &p); err != nil {
		t.Fatal(err)
	}
	deps := p.BuildDefinition.ResolvedDependencies
	if len(deps) != 3 || deps[0].Digest["sha1"] != commit {
		t.Fatalf("%+v", deps)
	}
	found := false
	for _, d2 := range deps {
		if d2.URI == "pkg:docker/example.com/bundles@latest?ref_type=bundle&vcs_url=https:%2F%2Fexample.com%2Frepo.git%23main" {
			found = d2.Digest["sha256"] == d.Encoded()
		}
	}
	req := p.BuildDefinition.ExternalParameters.Request
	if !found || len(req.Secrets) != 1 || !req.Secrets[0].Optional || len(req.SSH) != 1 {
		t.Errorf("%+v, %+v", deps, req)
	}
}

func TestProvenanceMin(t *testing.T) {
	f := facts(t)
	f.Sources.Local = append(f.Sources.Local, types.LocalSource{Name: "context"})
	kind, raw, err := f.Predicate(ProvenanceOptions{Version: "v0.2", Min: true})
	if err != nil || kind != "https://slsa.dev/provenance/v0.2" {
		t.Fatal(kind, err)
	}
	for _, secret := range []string{"build-arg", "token", "make", "FROM scratch"} {
		if strings.Contains(string(raw), secret) {
			t.Errorf("%s is told", secret)
		}
	}
	var p types.ProvenancePredicateSLSA02
	if err := json.Unmarshal(raw, &p); err != nil || p.Metadata.Completeness.Materials || p.Metadata.Completeness.Parameters || len(p.Materials) != 3 {
		t.Errorf("%s, %v", raw, err)
	}
	if _, _, err := f.Predicate(ProvenanceOptions{Version: "v1", Complete: true}); err == nil || !strings.Contains(err.Error(), "provenance materials are incomplete") {
		t.Error(err)
	}
}

func TestSubject(t *testing.T) {
	n, _ := ref.Parse("localhost:5000/team/app:1")
	s, err := ImageSubject(n, &ocispec.Platform{OS: "linux", Architecture: "arm64"}, digest.FromString("m"))
	if err != nil || s.Name != "pkg:docker/localhost%3A5000/team/app@1?platform=linux%2Farm64" && s.Name != "pkg:docker/localhost:5000/team/app@1?platform=linux%2Farm64" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestScan(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"etc/os-release":       "ID=debian\nVERSION_ID=\"13\"\n",
		"var/lib/dpkg/status":  "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\nDescription: a shell\n with many words\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
		"lib/apk/db/installed": "C:x\nP:musl\nV:1.2-r0\nA:x86_64\nL:MIT\n\n",
		"usr/lib/python3/site-packages/flask.dist-info/METADATA": "Metadata-Version: 2.1\nName: Flask\nVersion: 3.0\n\nName: not a header\n",
		"app/node_modules/@s/left-pad/package.json":              `{"name":"@s/left-pad","version":"1.3.0","license":"WTFPL"}`,
		"app/node_modules/left-pad/test/package.json":            `{"name":"fixture","version":"1"}`,
		"proc/1/package.json":                                    `{}`,
	}
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "app/program"), raw, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "var/lib/dpkg/status.d")); err != nil {
		t.Fatal(err)
	}
	root, err := tree.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	list, err := Scan(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, p := range list {
		urls = append(urls, p.URL())
	}
	for _, want := range []string{
		"pkg:deb/debian/bash@5.2-1?arch=amd64&distro=debian-13", "pkg:apk/debian/musl@1.2-r0?arch=x86_64&distro=debian-13", "pkg:pypi/flask@3.0", "pkg:npm/%40s/left-pad@1.3.0",
		"pkg:golang/stdlib@" + strings.TrimPrefix(runtime.Version(), "go"),
	} {
		if !slices.Contains(urls, want) {
			t.Errorf("%s is not among %v", want, urls)
		}
	}
	for _, u := range urls {
		if strings.Contains(u, "gone") || strings.Contains(u, "fixture") {
			t.Error(u)
		}
	}
	doc, err := Document(list, time.Unix(0, 0))
	if err != nil || !json.Valid(doc) || !strings.Contains(string(doc), `"spdxVersion": "SPDX-2.3"`) {
		t.Errorf("%s, %v", doc, err)
	}
}

func FuzzDatabases(f *testing.F) {
	f.Add([]byte("Package: a\nStatus: install ok installed\nVersion: 1\n\nP:x\nV:1\n"))
	f.Add([]byte(`{"name":"a","version":"1"}`))
	f.Add(elfFile(3, 0, []byte("\x00.dep-v0\x00"), 10))
	f.Add([]byte("# stub: a 1.0 ruby lib\nGem::Specification.new do |s|\n  s.licenses = [\"MIT\".freeze]\nend\n"))
	f.Add([]byte(`{"packages":[{"name":"a/b","version":"v1","license":["MIT"],"authors":[{"name":"x"}]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, list := range [][]Package{parseDpkg(raw, distro{}, "f"), parseAPK(raw, distro{}, "f"), parsePython(raw, "f"), parseNode(raw, "f"), parseJar(strings.NewReader(string(raw)), int64(len(raw)), "f"), parseGo(strings.NewReader(string(raw)), "f"),
			parseRust(strings.NewReader(string(raw)), "f"), parseGem(raw, "f"), parseComposer(raw, "f")} {
			for i := range list {
				list[i].URL()
			}
			if _, err := Document(list, time.Time{}); err != nil {
				t.Error(err)
			}
		}
	})
}

func FuzzSteps(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		buildSteps(&pb.Definition{Def: [][]byte{a, b}})
	})
}
