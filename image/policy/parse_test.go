package policy

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
)

var update = flag.Bool("update", false, "write the golden files")

const aKey = "-----BEGIN PUBLIC KEY-----\\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\\n-----END PUBLIC KEY-----\\n"

const example = `{
  "version": 1,
  "default": "reject",
  "keys": {"team": "` + aKey + `"},
  "rules": [
    {"images": "registry.example", "action": "accept"},
    {"images": "registry.example/team/**", "signed": [{"key": "team"}]},
    {"images": "registry.example/team/dev-*", "action": "accept"},
    {"images": "registry.example/team/web", "digest": true, "signed": [{"key": "team"}, {"key": "team", "predicate": "https://x/scan"}], "need": 2},
    {"images": "registry.example/*/tmp", "action": "reject", "reason": "temporary"},
    {"images": "docker.io/library/*",
     "digests": ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
    {"images": "*.corp.example/**", "action": "accept"},
    {"images": "localhost:5000/**", "action": "accept"}
  ]
}`

func noFiles(string) ([]byte, error) { return nil, errors.New("no such file") }

func parsed(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse("policy.json", []byte(text), noFiles)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheMostSpecificRuleHolds(t *testing.T) {
	p := parsed(t, example)
	var b strings.Builder
	for _, name := range []string{
		"registry.example/x", "registry.example/a/b/c", "registry.example/team/app", "registry.example/team/dev-1", "registry.example/team/dev-1/x",
		"registry.example/team/web", "registry.example/team/webx", "registry.example/team/tmp", "registry.example/other/tmp",
		"busybox", "docker.io/other/x", "a.corp.example/x", "corp.example/x", "a.b.corp.example/x/y", "localhost:5000/x", "localhost:5001/x",
	} {
		n, err := ref.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n\t%s\n", n.Repository(), p.Rule(n))
	}
	golden(t, "rules.golden", b.String())
}

// A rule is not got around by another spelling of the registry's name.
func TestSpellings(t *testing.T) {
	p := parsed(t, `{"version": 1, "default": "accept", "rules": [
		{"images": "Registry.example/**", "action": "reject"},
		{"images": "docker.io/library/*", "action": "reject"},
		{"images": "other.example:443/**", "action": "reject"}]}`)
	for name, want := range map[string]Action{
		"registry.example/x": Reject, "REGISTRY.example/x": Reject, "registry.example:443/x": Reject, "Registry.Example:443/x": Reject, "registry.example:5000/x": Accept,
		"registry-1.docker.io/library/x": Reject, "Registry-1.docker.io:443/library/x": Reject, "index.docker.io/library/x": Reject, "x": Reject,
		"other.example:443/x": Reject, "OTHER.example:443/x": Reject, "other.example/x": Reject,
	} {
		n, err := ref.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Rule(n).Action; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// Mistakes are told with their line.
func TestMistakes(t *testing.T) {
	frame := func(rules string) string {
		return "{\n \"version\": 1, \"default\": \"accept\",\n \"keys\": {\"k\": \"" + aKey + "\", \"weak\": \"-----BEGIN PUBLIC KEY-----\\nAA==\\n-----END PUBLIC KEY-----\"},\n \"rules\": [\n  {\"images\": \"a.example\", \"action\": \"accept\"},\n  " + rules + "\n]}"
	}
	var b strings.Builder
	for _, text := range []string{
		"", "[]", "{", "{}", `{"version": 1}`, `{"version": 2, "default": "accept"}`, "{\"version\": 1,\n\"default\": \"maybe\"}", `{"version": 1, "default": "accept"} x`,
		"{\"version\": 1, \"default\": \"accept\",\n\n\"rule\": []}", "{\"version\": 1,\n\"version\": 1, \"default\": \"accept\"}", "{\"version\": 1, \"default\": \"accept\",\n\"rules\": {}}",
		frame(`{}`), frame(`{"images": "b.example"}`), frame(`{"images": "b.example", "action": "allow"}`), frame(`{"images": "b.example", "action": "require"}`),
		frame(`{"images": "b.example", "action": "accept", "digest": true}`), frame(`{"images": "a.example", "action": "reject"}`), frame(`{"images": "library/x", "action": "accept"}`),
		frame(`{"images": "b.example//x", "action": "accept"}`), frame(`{"images": "b.example/**/x", "action": "accept"}`), frame(`{"images": "b.example/x@sha256:0", "action": "accept"}`),
		frame(`{"images": "b.example/x**", "action": "accept"}`), frame(`{"images": "b.example", "digests": ["sha256:0"]}`), frame("{\"images\": \"b.example\",\n   \"colour\": 1}"),
		frame(`{"images": "b.example", "signed": [{}]}`), frame(`{"images": "b.example", "signed": [{"key": "none.pub"}]}`), frame(`{"images": "b.example", "signed": [{"key": "weak"}]}`),
		frame(`{"images": "b.example", "signed": [{"key": "k"}], "need": 2}`), frame(`{"images": "b.example", "signed": [{"key": "k"}], "need": 0}`),
		frame(`{"images": "b.example", "signed": [{"identity": {"subject": "x"}}]}`), frame(`{"images": "b.example", "signed": [{"identity": {"issuer": "x"}}]}`),
		frame(`{"images": "b.example", "signed": [{"identity": {"issuer": "x", "subject": "y"}}]}`), frame(`{"images": "b.example", "signed": [{"identity": {"issuer": "x", "subject": "y", "roots": "k"}}]}`),
		frame(`{"images": "b.example", "signed": [{"identity": {"issuer": "x", "match": "(", "roots": "k"}}]}`), frame("{\"images\": \"b.example\", \"action\": \"reject\"},\n  ,"),
	} {
		p, err := Parse("policy.json", []byte(text), noFiles)
		if err == nil {
			t.Errorf("%s\nis taken: %+v", text, p)
			continue
		}
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: kind %v", text, fault.KindOf(err))
		}
		fmt.Fprintf(&b, "%s\n\t%s\n", text[max(0, len(text)-90):], err)
	}
	golden(t, "mistakes.golden", b.String())
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	key := strings.ReplaceAll(aKey, `\n`, "\n")
	os.Mkdir(filepath.Join(dir, "keys"), 0o755)
	os.WriteFile(filepath.Join(dir, "keys", "team.pub"), []byte(key), 0o644)
	path := filepath.Join(dir, "images.json")
	os.WriteFile(path, []byte(`{"version": 1, "default": "accept", "rules": [{"images": "a.example", "signed": [{"key": "keys/team.pub"}]}]}`), 0o644)
	p, err := Load(path)
	if err != nil || p.Name != "images" || p.rules[0].Signers[0].key == nil {
		t.Errorf("%+v, %v", p, err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	name, _ := ref.Parse("a.example/x")
	at := ocispec.Descriptor{Digest: root}
	if rule := f.Rule(name); rule != "require a signature of key keys/team.pub (images.json line 1, a.example)" {
		t.Errorf("rule %q", rule)
	}
	os.WriteFile(path, []byte(`{"version": 1, "default": "accept"}`), 0o644)
	if err := f.Verify(t.Context(), name, at, nil); err != nil {
		t.Errorf("a change holds for the next image: %v", err)
	}
	os.WriteFile(path, []byte(`{"version": 1`), 0o644)
	if err := f.Verify(t.Context(), name, at, nil); err == nil {
		t.Error("an image is accepted while the rules cannot be read")
	}
	if _, err := Open(path); !fault.Is(err, fault.Invalid) {
		t.Errorf("a broken file: %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none")); !fault.Is(err, fault.Invalid) {
		t.Errorf("no file: %v", err)
	}
}

// The document's example is a policy.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/image-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```json\n")
	block, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("no example")
	}
	a := newAuthority(t, issuerURL, nil)
	p, err := Parse("policy.json", []byte(block), func(name string) ([]byte, error) {
		if strings.HasSuffix(name, ".pem") {
			return []byte(certPEM(a.root)), nil
		}
		return []byte(strings.ReplaceAll(aKey, `\n`, "\n")), nil
	})
	if err != nil || p.Name != "production" || len(p.rules) != 5 {
		t.Errorf("%+v, %v", p, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(`{"version":1,"default":"accept","rules":[{"images":"*/**","signed":[{"identity":{"issuer":"a","match":".*","roots":"x"},"log":"y"}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse("p", text, noFiles)
		if err != nil {
			if !strings.Contains(err.Error(), " line ") {
				t.Errorf("no line: %v", err)
			}
			return
		}
		name, _ := ref.Parse("registry.example/team/web")
		if r := p.Rule(name); r == nil || r.Line < 1 || r.String() == "" {
			t.Errorf("%+v", r)
		}
	})
}

func FuzzPattern(f *testing.F) {
	f.Add("a.example/*x*/**", "a.example/yxz/b")
	f.Fuzz(func(t *testing.T, text, name string) {
		p, problem := parsePattern(text)
		if problem != "" {
			return
		}
		p.match(name)
		if p.above(p) {
			t.Errorf("%q is above itself", text)
		}
		if !strings.Contains(text, "*") && len(p) > 1 && p[len(p)-1] != "**" && !p.match(text) {
			t.Errorf("%q does not match itself", text)
		}
	})
}
