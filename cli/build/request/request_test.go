package request

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseOutputs(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"out", "type=local,dest=out", ""},
		{"-", "type=tar,dest=-", ""},
		{"dir=x", "type=local,dest=dir=x", ""},
		{"type=registry,name=a/b,push-by-digest=true", "type=registry,name=a/b,push-by-digest=true", ""},
		{`type=image,"name=a,b",Push=true`, `type=image,"name=a,b",push=true`, ""},
		{"type=docker,dest=x.tar", "type=docker,dest=x.tar", ""},
		{"dest=x,name=y", "", "type is required for output"},
		{"type=local,oops", "", "invalid value oops"},
	} {
		got, err := ParseOutputs([]string{c.in, ""})
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%q: error %v, want %s", c.in, err, c.err)
			}
			continue
		}
		if err != nil || len(got) != 1 || got[0].String() != c.want {
			t.Errorf("%q: %v, %v, want %s", c.in, got, err, c.want)
		}
	}
}

func TestParseCaches(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"user/app:cache,other", "user/app:cache other", ""},
		{"type=local,dest=x,mode=max", "type=local,dest=x,mode=max", ""},
		{"type=registry,ref=a/b", "a/b", ""},
		{"dest=x", "", `type required for "dest=x"`},
	} {
		got, err := ParseCaches([]string{c.in})
		var texts []string
		for _, g := range got {
			texts = append(texts, g.String())
		}
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%q: error %v, want %s", c.in, err, c.err)
			}
		} else if err != nil || strings.Join(texts, " ") != c.want {
			t.Errorf("%q: %q, %v, want %q", c.in, texts, err, c.want)
		}
	}
}

func TestParseSecrets(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"id=a,src=b", "id=a,src=b", ""},
		{"id=a", "id=a", ""},
		{"type=env,id=a,src=B", "id=a,env=B", ""},
		{"id=a,env=B", "id=a,env=B", ""},
		{"a", "", "invalid field 'a' must be a key=value pair"},
		{"id=a,foo=b", "", "unexpected key 'foo' in 'foo=b'"},
		{"type=x,id=a", "", `unsupported secret type "x"`},
	} {
		got, err := ParseSecrets([]string{c.in})
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%q: error %v, want %s", c.in, err, c.err)
			}
		} else if err != nil || got[0].String() != c.want {
			t.Errorf("%q: %v, %v, want %s", c.in, got, err, c.want)
		}
	}
}

func TestParseCall(t *testing.T) {
	for in, want := range map[string]Call{
		"":                       {},
		"build":                  {},
		"check":                  {Name: "lint"},
		"outline,format=json":    {Name: "outline", Format: "json"},
		"lint,ignorestatus=true": {Name: "lint", IgnoreStatus: true},
	} {
		got, err := ParseCall(in)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"a,b", "a,x=y", "a,ignorestatus=maybe"} {
		if _, err := ParseCall(in); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}

func TestHosts(t *testing.T) {
	gateway := func() (string, error) { return "10.0.0.1", nil }
	got, err := hostList([]string{"a:1.2.3.4", "b=::1", "c:[fe80::1]", "d:host-gateway", "e=1.1.1.1,2.2.2.2"}, gateway)
	if want := "a=1.2.3.4,b=::1,c=fe80::1,d=10.0.0.1,e=1.1.1.1,e=2.2.2.2"; err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	for _, bad := range []string{"a", "a:b", ":1.2.3.4"} {
		if _, err := hostList([]string{bad}, gateway); err == nil || err.Error() != "invalid host "+bad {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// prepared gives the request of a spec in an empty directory with a Dockerfile, with the attributes that matter.
func prepared(t *testing.T, change func(*Spec)) (*Request, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	s := &Spec{Context: "."}
	change(s)
	r, err := s.Prepare(context.Background(), Engine{Attests: true, HostGateway: func() (string, error) { return "10.0.0.1", nil }, Proxy: map[string]string{"HTTP_PROXY": "p"}}, strings.NewReader("FROM stdin\n"), nil)
	if err == nil {
		t.Cleanup(r.Release)
	}
	return r, err
}

func TestAttributes(t *testing.T) {
	const always = "image-resolve-mode=local filename=Dockerfile build-arg:HTTP_PROXY=p attest:provenance=mode=min,inline-only=true"
	for name, c := range map[string]struct {
		change func(*Spec)
		want   string // beside what is always there; -KEY is not there
	}{
		"plain":    {func(*Spec) {}, ""},
		"args":     {func(s *Spec) { s.Args = map[string]string{"A": "1", "http_proxy": "own"} }, "build-arg:A=1 build-arg:http_proxy=own -build-arg:HTTP_PROXY"},
		"labels":   {func(s *Spec) { s.Labels = map[string]string{"l": "x"} }, "label:l=x"},
		"pull":     {func(s *Spec) { s.Pull = true }, "image-resolve-mode=pull"},
		"no cache": {func(s *Spec) { s.NoCache = true }, "no-cache="},
		"filter":   {func(s *Spec) { s.NoCacheFilter = []string{"a", "b"} }, "no-cache=a,b"},
		"platform": {func(s *Spec) { s.Platforms = []string{"linux/amd64,linux/arm/v7", "linux/arm64"} }, "platform=linux/amd64,linux/arm/v7,linux/arm64"},
		"network":  {func(s *Spec) { s.Network = "host" }, "force-network-mode=host"},
		"limits":   {func(s *Spec) { s.Resources = []string{"memory=2g", "memory-swap=-1", "cpuset-cpus=0-1", "cpu-quota=5"} }, "memory=2147483648 memswap=-1 cpusetcpus=0-1 cpuquota=5"},
		"ulimits":  {func(s *Spec) { s.Ulimits, s.ShmSize, s.CgroupParent = []string{"nofile=1:2"}, 64, "/x" }, "ulimit=nofile=1:2 shm-size=64 cgroup-parent=/x"},
		"call":     {func(s *Spec) { s.Call = Call{Name: "lint"} }, "requestid=frontend.lint frontend.caps=moby.buildkit.frontend.subrequests+forward"},
		"attest":   {func(s *Spec) { s.Attests = []Attest{{Type: "provenance", Disabled: true}, {Type: "sbom"}} }, "attest:sbom=type=sbom -attest:provenance"},
		"syntax":   {func(s *Spec) { s.Args = map[string]string{"BUILDKIT_SYNTAX": "a/b x"} }, "source=a/b cmdline=a/b x"},
		"contexts": {func(s *Spec) {
			s.Contexts = map[string]string{"img": "docker-image://busybox", "src": ".", "git": "https://example.com/x.git?ref=main"}
		}, "context:img=docker-image://busybox context:src=local:src context:git=https://example.com/x.git?ref=main frontend.caps=moby.buildkit.frontend.contexts+forward,moby.buildkit.frontend.gitquerystring+forward"},
		"remote": {func(s *Spec) { s.Context = "https://github.com/moby/buildkit.git" }, "context=https://github.com/moby/buildkit.git"},
		"stdin":  {func(s *Spec) { s.Context = "-" }, "dockerfilekey=dockerfile"},
		"inline": {func(s *Spec) { s.DockerfileInline = "FROM scratch" }, "dockerfilekey=dockerfile"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := prepared(t, c.change)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			var without []string
			for _, list := range []string{always, c.want} {
				for _, w := range splitWords(list) {
					k, v, _ := strings.Cut(w, "=")
					if strings.HasPrefix(w, "-") {
						without = append(without, w[1:])
						delete(want, w[1:])
						continue
					}
					want[k] = v
				}
			}
			got := r.Solve.FrontendAttrs
			for k, v := range want {
				if got[k] != v {
					t.Errorf("%s is %q, want %q", k, got[k], v)
				}
			}
			for _, k := range without {
				if v, ok := got[k]; ok {
					t.Errorf("%s is there: %q", k, v)
				}
			}
		})
	}
}

// splitWords splits at spaces before a key.
func splitWords(s string) []string {
	var out []string
	for _, w := range strings.Fields(s) {
		if !strings.Contains(w, "=") && !strings.HasPrefix(w, "-") && len(out) > 0 {
			out[len(out)-1] += " " + w
			continue
		}
		out = append(out, w)
	}
	return out
}

func TestExports(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Spec)
		want   []string // type and attributes
	}{
		"nothing said": {func(s *Spec) { s.Tags = []string{"a", "b:1"} }, []string{"moby,name=a,b:1"}},
		"push":         {func(s *Spec) { s.Tags, s.Push = []string{"a"}, true }, []string{"moby,name=a,push=true,unpack=false"}},
		"load":         {func(s *Spec) { s.Load = true }, []string{"moby"}},
		"cache only":   {func(s *Spec) { s.Outputs = []Output{{Type: "cacheonly"}} }, nil},
		"two":          {func(s *Spec) { s.Outputs = []Output{{Type: "oci", Dest: "o.tar"}, {Type: "local", Dest: "out"}} }, []string{"oci", "local"}},
		"registry":     {func(s *Spec) { s.Outputs = []Output{{Type: "registry", Attrs: map[string]string{"name": "x"}}} }, []string{"moby,name=x,push=true,unpack=false"}},
		"annotation":   {func(s *Spec) { s.Annotations = []string{"index,manifest[linux/amd64]:k=v", "p=q"} }, []string{"moby,annotation-index.k=v,annotation-manifest[linux/amd64].k=v,annotation.p=q"}},
		"squash":       {func(s *Spec) { s.Squash = true }, []string{"moby,squash=true"}},
		"call":         {func(s *Spec) { s.Call = Call{Name: "lint"} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := prepared(t, c.change)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range r.Solve.Exports {
				got = append(got, strings.ReplaceAll(Join([]string{e.Type}, e.Attrs), `"`, ""))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Spec){
		`unable to prepare context: path "nowhere" not found`: func(s *Spec) { s.Context = "nowhere" },
		"please specify build context":                        func(s *Spec) { s.Context = "" },
		"can't use stdin for both":                            func(s *Spec) { s.Context, s.Dockerfile = "-", "-" },
		"ambiguous Dockerfile source":                         func(s *Spec) { s.Context, s.Dockerfile = "-", "x" },
		"--no-cache and --no-cache-filter cannot":             func(s *Spec) { s.NoCache, s.NoCacheFilter = true, []string{"a"} },
		"tag is needed when pushing to registry":              func(s *Spec) { s.Push = true },
		`invalid tag "A B"`:                                   func(s *Spec) { s.Tags = []string{"A B"} },
		`network mode "lan" not supported`:                    func(s *Spec) { s.Network = "lan" },
		"dest is required for local exporter":                 func(s *Spec) { s.Outputs = []Output{{Type: "local"}} },
		"is a file":                                           func(s *Spec) { s.Outputs = []Output{{Type: "local", Dest: file}} },
		"is a directory":                                      func(s *Spec) { s.Outputs = []Output{{Type: "tar", Dest: "."}} },
		"multiple outputs configured to write to stdout":      func(s *Spec) { s.Outputs = []Output{{Type: "tar"}, {Type: "oci"}} },
		"requires --allow=buildx.local.delete": func(s *Spec) {
			s.Outputs = []Output{{Type: "local", Dest: filepath.Dir(file), Attrs: map[string]string{"mode": "delete"}}}
		},
		"docker exporter does not support exporting manifest": func(s *Spec) {
			s.Platforms, s.Outputs = []string{"linux/amd64,linux/arm64"}, []Output{{Type: "docker", Dest: "x"}}
		},
		"failed to get build context x": func(s *Spec) { s.Contexts = map[string]string{"x": "nowhere"} },
		"failed to stat nowhere":        func(s *Spec) { s.Secrets = []Secret{{ID: "s", Path: "nowhere"}} },
		"unknown annotation type":       func(s *Spec) { s.Annotations = []string{"foo:k=v"} },
		"invalid resource":              func(s *Spec) { s.Resources = []string{"memory"} },
		"unknown entitlement":           func(s *Spec) { s.Allow = []string{"everything"} },
	} {
		if _, err := prepared(t, change); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// What is expanded goes over in a directory of its own, with the ignore file of its Dockerfile.
func TestExpanded(t *testing.T) {
	r, err := prepared(t, func(s *Spec) {
		for name, text := range map[string]string{
			"app.Dockerfile":              "# berth:expand\nFROM scratch\nINCLUDE parts/p\n",
			"app.Dockerfile.dockerignore": "secret\n",
			"parts/p":                     "LABEL part=1\n",
		} {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s.Dockerfile = "app.Dockerfile"
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := r.remove[0]
	text, err := os.ReadFile(filepath.Join(dir, "Dockerfile"))
	if err != nil || string(text) != "FROM scratch\nLABEL part=1\n" {
		t.Errorf("%q, %v", text, err)
	}
	if rules, err := os.ReadFile(filepath.Join(dir, "Dockerfile.dockerignore")); err != nil || string(rules) != "secret\n" {
		t.Errorf("%q, %v", rules, err)
	}
	r.Release()
	if _, err := os.Stat(dir); err == nil {
		t.Error("Release left the directory")
	}
}

func TestIsArchive(t *testing.T) {
	if !IsArchive([]byte("\x1f\x8b\x08rest")) || IsArchive([]byte("FROM scratch\n")) || IsArchive(nil) {
		t.Error("wrong")
	}
}

func TestSplitLayout(t *testing.T) {
	const d = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for in, want := range map[string][3]string{
		"dir":          {"dir", "latest", ""},
		"dir:1.0":      {"dir", "1.0", ""},
		"/a/b@" + d:    {"/a/b", "", d},
		"/a/b:1@" + d:  {"/a/b", "1", d},
		`C:\a`:         {`C:\a`, "latest", ""},
		"/with@sign/b": {"/with@sign/b", "latest", ""},
	} {
		path, tag, dgst := splitLayout(in)
		if got := [3]string{path, tag, dgst.String()}; got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func TestSharedKeysDiffer(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "app"), filepath.Join(t.TempDir(), "app")
	if sharedKey(a) == sharedKey(b) || !strings.HasPrefix(sharedKey(a), "app:") {
		t.Error(sharedKey(a), sharedKey(b))
	}
}

func FuzzFields(f *testing.F) {
	for _, s := range []string{"type=local,dest=x", `"a=b,c",d=e`, "id=x,src=y", "a", "k=", `"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if all, err := ParseOutputs([]string{s}); err == nil {
			for _, o := range all {
				again, err := ParseOutputs([]string{o.String()})
				if err != nil || len(again) != 1 || again[0].Type != o.Type {
					if !strings.ContainsAny(s, "\"\r\n\x00") && o.Type != "" {
						t.Fatalf("%q gives %q, which gives %v, %v", s, o.String(), again, err)
					}
				}
			}
		}
		_, _ = ParseCaches([]string{s})
		_, _ = ParseSecrets([]string{s})
		_, _ = ParseAttests([]string{s}, s, s)
		_, _ = ParseCall(s)
		_, _ = annotations([]string{s})
	})
}
