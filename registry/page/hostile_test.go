package page

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/net/html"

	"berth/registry/access"
	"berth/registry/catalog"
)

// What strangers would like to see in a page.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'"><svg/onload=alert(1)>`, `</textarea><script>alert(1)</script>`,
	`{{.User}}`, `javascript:alert(1)`, "\u202egnp.exe", `</title><script>alert(1)</script>`, `<a href="javascript:alert(1)">x</a>`,
	`[x](javascript:alert(1))`, `![x](https://evil.example/pixel.png)`, `<iframe src="https://evil.example">`, `<style>*{display:none}</style>`,
	"[x](data:text/html;base64,PHNjcmlwdD4=)", "<javascript:alert(1)>", "[x]: javascript:alert(1)\n\n[x]", `<form action="https://evil.example">`,
	"[x](https://ok.example/\"onmouseover=\"alert(1))", "`<script>`", "| <script>alert(1)</script> |\n|---|\n| <img src=x onerror=alert(1)> |", "[x](vbscript:x)", "[x](//evil.example)",
}

// check parses a page as a browser does and refuses everything that a stranger must not bring in.
func check(t *testing.T, what, page string) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	var walk func(n *html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.ElementNode {
			switch n.Data {
			case "script", "iframe", "object", "embed", "style", "base", "frame":
				t.Errorf("%s: there is a <%s>", what, n.Data)
			}
			for _, a := range n.Attr {
				v := strings.ToLower(strings.TrimSpace(a.Val))
				switch {
				case strings.HasPrefix(a.Key, "on"), a.Key == "style":
					t.Errorf("%s: <%s %s=%q>", what, n.Data, a.Key, a.Val)
				case a.Key == "href" && n.Data == "a":
					if u, err := url.Parse(a.Val); err != nil || u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "mailto" || strings.HasPrefix(v, "//") {
						t.Errorf("%s: a link to %q", what, a.Val)
					} else if u.Scheme != "" && !strings.Contains(attr(n, "rel"), "noopener") {
						t.Errorf("%s: a link away without rel: %q", what, a.Val)
					}
				case a.Key == "src" || a.Key == "action" || a.Key == "href":
					if !strings.HasPrefix(v, "/") || strings.HasPrefix(v, "//") {
						t.Errorf("%s: <%s %s=%q>", what, n.Data, a.Key, a.Val)
					}
				}
			}
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	walk(doc)
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func TestStrangersBringNothingIn(t *testing.T) {
	s := start(t, nil)
	labels := map[string]string{"org.opencontainers.image.description": strings.Join(hostile, " ")}
	for i, h := range hostile {
		labels[h] = h
		labels["org.opencontainers.image."+[]string{"source", "url", "documentation", "vendor", "version", "licenses"}[i%6]] = h
	}
	s.push(t, "team/web:1", img(t, "amd64", []int64{100, 100}, append([]string{hostile[0], hostile[1]}, hostile...), func(c *v1.ConfigFile) {
		c.Config.Labels, c.Config.Cmd, c.Config.Env, c.Config.User, c.Author = labels, hostile, hostile, hostile[1], hostile[0]
		c.Config.ExposedPorts = map[string]struct{}{hostile[0]: {}}
		c.OS, c.Architecture = hostile[0], hostile[1]
	}))
	if err := s.catalog.Describe(t.Context(), access.Subject{}, "team/web", catalog.Description{Long: strings.ReplaceAll(strings.Join(hostile, "\n\n"), "\u202e", "")}); err != nil {
		t.Fatal(err)
	}
	b := s.browser(t)
	b.signIn(t, "alice")
	for _, path := range []string{"/", "/r/team/web", "/r/team/web:1", "/edit/team/web", "/search?q=" + url.QueryEscape(strings.Join(hostile[:5], " ")),
		"/signin?next=" + url.QueryEscape(`"><script>alert(1)</script>`), "/r/" + url.PathEscape(`<script>alert(1)</script>`), "/o/" + url.PathEscape(`"><script>`), "/<script>", "/r/team/web:<script>"} {
		_, page := b.get(t, path)
		check(t, path, page)
	}
	resp, err := b.Get(s.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for k, want := range map[string]string{"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store"} {
		if got := resp.Header.Get(k); got != want {
			t.Errorf("%s: %q", k, got)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "script-src") {
		t.Error("the policy allows scripts")
	}
	r := httpRequest(s.URL, "evil.example\"><script>")
	if got := s.pages.host(r); got != "registry" {
		t.Errorf("a forged Host shows: %q", got)
	}
}

func TestMarkdown(t *testing.T) {
	for in, want := range map[string]string{
		"# A":                              "<h2>A</h2>\n",
		"**b** ~~c~~ `d`":                  "<p><strong>b</strong> <del>c</del> <code>d</code></p>\n",
		"[a](https://x.example/y)":         `<p><a rel="nofollow noopener noreferrer ugc" href="https://x.example/y">a</a></p>` + "\n",
		"[a](javascript:alert(1))":         "<p>a</p>\n",
		"[a](relative)":                    "<p>a</p>\n",
		"![logo](https://x.example/l.png)": `<p><a rel="nofollow noopener noreferrer ugc" href="https://x.example/l.png">logo</a></p>` + "\n",
		"![](https://x.example/l.png)":     `<p><a rel="nofollow noopener noreferrer ugc" href="https://x.example/l.png">image</a></p>` + "\n",
		"[![badge](https://x.example/b.svg)](https://x.example/)": `<p><a rel="nofollow noopener noreferrer ugc" href="https://x.example/">badge</a></p>` + "\n",
		"a <b onclick=x>c</b>":     "<p>a <!-- raw HTML omitted -->c<!-- raw HTML omitted --></p>\n",
		"see https://x.example/a.": `<p>see <a rel="nofollow noopener noreferrer ugc" href="https://x.example/a">https://x.example/a</a>.</p>` + "\n",
		"<me@x.example>":           `<p><a rel="nofollow noopener noreferrer ugc" href="mailto:me@x.example">me@x.example</a></p>` + "\n",
		"| a |\n|:-:|\n| b |":      "<table>\n<thead>\n<tr>\n<th align=\"center\">a</th>\n</tr>\n</thead>\n<tbody>\n<tr>\n<td align=\"center\">b</td>\n</tr>\n</tbody>\n</table>\n",
	} {
		if got := string(markdown(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzMarkdown(f *testing.F) {
	for _, h := range hostile {
		f.Add(h)
	}
	bad := regexp.MustCompile(`(?i)<(script|iframe|img|svg|form|style|object|embed|base)\b`)
	f.Fuzz(func(t *testing.T, in string) {
		out := string(markdown(in))
		if m := bad.FindString(out); m != "" {
			t.Errorf("%q makes %s in %q", in, m, out)
		}
		check(t, in, out)
	})
}

func httpRequest(to, host string) *http.Request {
	r, _ := http.NewRequest("GET", to, nil)
	r.Host = host
	return r
}
