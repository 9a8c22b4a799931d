package page

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"berth/auth"
	"berth/registry/access"
	"berth/registry/catalog"
	"berth/registry/distribution"
	"berth/registry/storage"
	"berth/registry/storage/dir"
)

// rights: alice may do everything, everybody else pulls what does not begin with secret/.
type rights struct{}

func (rights) Allowed(_ context.Context, s access.Subject, repository string, a access.Action) (bool, error) {
	return s.Name == "alice" || a == access.Pull && !strings.HasPrefix(repository, "secret/"), nil
}

// A site is a registry with pages in front.
type site struct {
	*httptest.Server
	host    string
	catalog *catalog.Catalog
	pages   *Pages
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func start(t *testing.T, change func(*Config)) *site {
	t.Helper()
	d, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(t.Context(), d, storage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(catalog.Config{Root: t.TempDir(), Source: catalog.FromStorage(store), Access: rights{}, Log: quiet(),
		Certify: func(_ context.Context, repository string) (string, bool, error) {
			return "release", repository == "library/tomcat", nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Catalog: c, Storage: store, Access: rights{}, Log: quiet(), Title: "Harbour Registry",
		SignIn: func(_ *http.Request, name, password string) (access.Subject, func(context.Context) (access.Subject, error), error) {
			if password != "right" {
				return access.Subject{}, nil, auth.ErrPassword
			}
			who := access.Subject{Name: name}
			return who, func(context.Context) (access.Subject, error) { return who, nil }, nil
		}}
	if change != nil {
		change(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	v2 := distribution.New(distribution.Config{Storage: store, Events: c.Notice})
	mux := http.NewServeMux()
	mux.Handle("/v2/", v2)
	mux.Handle("/", p)
	s := &site{Server: httptest.NewServer(mux), catalog: c, pages: p}
	s.host = strings.TrimPrefix(s.URL, "http://")
	t.Cleanup(func() { s.Close(); c.Close(); store.Close() })
	return s
}

// img makes an image with a history.
func img(t *testing.T, arch string, sizes []int64, commands []string, change func(*v1.ConfigFile)) v1.Image {
	t.Helper()
	image := empty.Image
	for i, n := range sizes {
		l, err := random.Layer(n, types.OCILayer)
		if err != nil {
			t.Fatal(err)
		}
		if image, err = mutate.Append(image, mutate.Addendum{Layer: l, History: v1.History{CreatedBy: commands[i], Created: v1.Time{Time: time.Now()}}}); err != nil {
			t.Fatal(err)
		}
	}
	cf, _ := image.ConfigFile()
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", arch
	for _, c := range commands[len(sizes):] {
		cf.History = append(cf.History, v1.History{CreatedBy: c, EmptyLayer: true})
	}
	if change != nil {
		change(cf)
	}
	image, err := mutate.ConfigFile(image, cf)
	if err != nil {
		t.Fatal(err)
	}
	return mutate.MediaType(mutate.ConfigMediaType(image, types.OCIConfigJSON), types.OCIManifestSchema1)
}

func (s *site) tag(t *testing.T, ref string) name.Tag {
	t.Helper()
	n, err := name.NewTag(s.host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (s *site) push(t *testing.T, ref string, image v1.Image) {
	t.Helper()
	if err := remote.Write(s.tag(t, ref), image); err != nil {
		t.Fatal(err)
	}
	s.settle(t)
}

func (s *site) settle(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.catalog.Settle(ctx); err != nil {
		t.Fatal(err)
	}
}

// A browser keeps cookies and follows redirects, as people's do.
type browser struct {
	*http.Client
	s *site
}

func (s *site) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{&http.Client{Jar: jar}, s}
}

func (b *browser) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := b.Get(b.s.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, resp)
}

func read(t *testing.T, resp *http.Response) (int, string) {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// post sends a form with the token out of the page that holds it.
func (b *browser) post(t *testing.T, from, to string, fields url.Values) (int, string) {
	t.Helper()
	_, page := b.get(t, from)
	if m := regexp.MustCompile(`name="form" value="([^"]+)"`).FindAllStringSubmatch(page, -1); m != nil && fields.Get("form") == "" {
		fields.Set("form", m[len(m)-1][1])
	}
	resp, err := b.PostForm(b.s.URL+to, fields)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, resp)
}

func (b *browser) signIn(t *testing.T, name string) {
	t.Helper()
	if code, body := b.post(t, "/signin", "/signin", url.Values{"name": {name}, "password": {"right"}}); code != 200 || !strings.Contains(body, ">"+name+"</span>") {
		t.Fatalf("signing in: %d\n%s", code, body)
	}
}

func contains(t *testing.T, what, body string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(body, w) {
			t.Errorf("%s: missing %q in\n%s", what, w, body)
		}
	}
}

func TestBrowse(t *testing.T) {
	s := start(t, nil)
	s.fill(t)
	b := s.browser(t)
	code, body := b.get(t, "/")
	contains(t, "first page", body, `href="/r/library/tomcat"`, ">tomcat<", "Official", "Certified · release", "Organisations", `href="/o/team"`, "Sign in", "7 repositories")
	if code != 200 || strings.Contains(body, "secret/") {
		t.Errorf("%d, or what is private shows", code)
	}
	_, body = b.get(t, "/?sort=name")
	if !(strings.Index(body, `href="/r/library/nginx"`) < strings.Index(body, `href="/r/ops/backup"`) && strings.Index(body, `href="/r/ops/backup"`) < strings.Index(body, `href="/r/team/web"`)) {
		t.Error("not sorted by name")
	}
	contains(t, "order", body, `class="on" aria-current="true">Name`, `href="/?sort=pushed"`)
	_, body = b.get(t, "/search?q=servlet")
	contains(t, "search", body, "tomcat", "1 repository")
	_, body = b.get(t, "/search?q=nosuch")
	contains(t, "search", body, "Nothing that you may see")
	_, body = b.get(t, "/o/team")
	contains(t, "organisation", body, "team/web", "<h1>team</h1>")
	_, body = b.get(t, "/r/library/tomcat")
	contains(t, "repository", body, "docker pull "+s.host+"/library/tomcat:10", `href="/r/library/tomcat:9"`, "linux/arm64", "<strong>servlet container</strong>", "Apache-2.0", `href="https://example.org/tomcat"`)
	if strings.Contains(body, "Edit description") || strings.Contains(body, "sha256-") {
		t.Error("a stranger may edit, or a signature's tag is listed")
	}
	_, body = b.get(t, "/r/library/tomcat:10")
	contains(t, "image", body, "linux/amd64", "RUN apt-get update", "catalina.sh run", "8080/tcp", "@sha256:", "Signature", "SBOM", "Labels", "org.opencontainers.image.source")
	_, body = b.get(t, "/r/library/tomcat:10?platform=linux/arm64")
	contains(t, "platform", body, `aria-current="true" href="/r/library/tomcat:10?platform=`)
	for path, want := range map[string]int{"/r/no/such": 404, "/r/secret/plans": 404, "/r/secret/plans:1": 404, "/r/library/tomcat:11": 404, "/r/library/tomcat@sha256:00": 404,
		"/r/UPPER": 404, "/r/..%2f..": 404, "/o/none": 404, "/o/secret": 404, "/x": 404, "/static/../page.go": 404, "/static/style.css": 200, "/static/icon.svg": 200,
		"/?page=999999": 200, "/?page=x": 200, "/r/library/tomcat:10?platform=x": 404, "/edit/library/tomcat": 403} {
		if code, _ := b.get(t, path); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
}

func TestPullCommand(t *testing.T) {
	for _, c := range []struct{ kind, tag, want string }{
		{"image", "2", "docker pull h/a:2"}, {"", "2", "docker pull h/a:2"}, {"image", "", "docker pull h/a@sha256:x"},
		{"application/vnd.cncf.helm.config.v1+json", "2", "helm pull oci://h/a --version 2"}, {"application/vnd.cncf.helm.config.v1+json", "", "oras pull h/a@sha256:x"},
		{"application/spdx+json", "2", "oras pull h/a:2"},
	} {
		if got := pullCommand(c.kind, "h/a", c.tag, "sha256:x"); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// fill pushes what a small team's registry holds.
func (s *site) fill(t *testing.T) {
	t.Helper()
	labels := map[string]string{
		"org.opencontainers.image.description":   "Apache Tomcat, an open source servlet container for Jakarta EE applications",
		"org.opencontainers.image.version":       "10.1.34",
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.source":        "https://example.org/tomcat",
		"org.opencontainers.image.documentation": "https://example.org/tomcat/docs",
	}
	commands := []string{"/bin/sh -c #(nop) ADD file:4fe4 in / ", "RUN /bin/sh -c apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* # buildkit",
		"COPY tomcat /usr/local/tomcat # buildkit", "RUN /bin/sh -c useradd -r tomcat # buildkit", "ENV CATALINA_HOME=/usr/local/tomcat", "EXPOSE map[8080/tcp:{}]", `CMD ["catalina.sh" "run"]`}
	tomcat := func(arch string) v1.Image {
		return img(t, arch, []int64{290_000, 120_000, 160_000, 2_000}, commands, func(c *v1.ConfigFile) {
			c.Config.Labels, c.Config.Cmd, c.Config.WorkingDir, c.Config.User = labels, []string{"catalina.sh", "run"}, "/usr/local/tomcat", "tomcat"
			c.Config.ExposedPorts = map[string]struct{}{"8080/tcp": {}}
			c.Config.Env = []string{"PATH=/usr/local/tomcat/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "CATALINA_HOME=/usr/local/tomcat", "JAVA_HOME=/opt/java"}
		})
	}
	for _, version := range []string{"8.5", "9.0", "9"} {
		s.push(t, "library/tomcat:"+version, tomcat("amd64"))
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var amd64 v1.Image
	for _, arch := range []string{"amd64", "arm64"} {
		i := tomcat(arch)
		if arch == "amd64" {
			amd64 = i
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: i, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	for _, tag := range []string{"10.1", "10"} {
		if err := remote.WriteIndex(s.tag(t, "library/tomcat:"+tag), index); err != nil {
			t.Fatal(err)
		}
	}
	h, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	small := img(t, "amd64", []int64{300}, []string{""}, nil)
	s.push(t, "library/tomcat:"+strings.Replace(h.String(), ":", "-", 1)+".sig", small)
	desc, err := partial(amd64)
	if err != nil {
		t.Fatal(err)
	}
	sbom := mutate.Subject(mutate.ConfigMediaType(mutate.MediaType(img(t, "", []int64{900}, []string{""}, nil), types.OCIManifestSchema1), "application/spdx+json"), desc).(v1.Image)
	if err := remote.Write(s.tag(t, "library/tomcat:for-referrer"), sbom); err != nil {
		t.Fatal(err)
	}
	if err := remote.Delete(s.tag(t, "library/tomcat:for-referrer")); err != nil {
		t.Log("the tag of the SBOM stays:", err)
	}
	for _, r := range []struct{ ref, text string }{
		{"library/nginx:1.27.3-alpine", "Official build of Nginx"}, {"library/postgres:17", "The PostgreSQL object-relational database system"},
		{"team/web:2", "The shop's front end"}, {"team/billing-worker:2026-06-30", "Sends invoices, retries, gives up politely"},
		{"team/web/assets:1", ""}, {"ops/backup:stable", "Nightly dumps to object storage"}, {"secret/plans:1", "nobody may see this"},
	} {
		s.push(t, r.ref, img(t, "amd64", []int64{40_000}, []string{"COPY . /"}, func(c *v1.ConfigFile) {
			c.Config.Labels = map[string]string{"org.opencontainers.image.description": r.text}
		}))
	}
	long := "# What it is\n\nA **servlet container** that [serves](https://example.org/) web applications.\n\n## How to run it\n\n```sh\ndocker run -d -p 8080:8080 --name tc tomcat\n```\n\n" +
		"| Tag | Java | Until |\n|---|---|---|\n| `10` | 21 | 2028 |\n| `9` | 17 | 2027 |\n\n- configuration in `conf/`\n- logs to the standard output\n- [x] runs without root\n\n> Report problems to the list.\n"
	for who, text := range map[string]string{"library/tomcat": long} {
		if err := s.catalog.Describe(t.Context(), access.Subject{Name: "alice"}, who, catalog.Description{Long: text}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 14 {
		s.catalog.Star(t.Context(), fmt.Sprint("u", i), "library/tomcat", true)
		if i < 5 {
			s.catalog.Star(t.Context(), fmt.Sprint("u", i), "team/web", true)
		}
	}
	s.settle(t)
}

// partial gives an image's descriptor.
func partial(i v1.Image) (v1.Descriptor, error) {
	d, err := i.Digest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	n, err := i.Size()
	return v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: d, Size: n}, err
}
