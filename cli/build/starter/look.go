package starter

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A Kind is what a project is written in.
type Kind string

// The kinds that init knows, in the order in which it looks: a static site is what has pages and nothing else.
const (
	Go     Kind = "go"
	Rust   Kind = "rust"
	Java   Kind = "java"
	Node   Kind = "node"
	Python Kind = "python"
	Static Kind = "static"
)

// Kinds are all of them.
func Kinds() []Kind { return []Kind{Go, Rust, Java, Node, Python, Static} }

// A Project is what its files tell.
type Project struct {
	Kind    Kind
	Name    string   // of the program, and of the service
	Version string   // of the language, as an image's tag has it; "" is unknown
	Port    int      // that it listens on; 0 is none
	Assumed []string // what its files did not tell

	Main    string // go: the package to build. python: the file. java: the jar's name. static: the directory with the pages
	Manager string // node: npm, yarn, pnpm. java: maven, gradle. python: pip, poetry
	Locked  bool   // the exact versions of what it needs are written down
	Script  string // node: the script that makes what is served, if any
	Start   []string
	Wrapper bool // java: the project has its build tool with it
	Package bool // python: the project itself is installed
	Deps    bool // it needs other packages
}

// ErrUnknown is what Look gives for a directory that is none of the kinds.
var ErrUnknown = errors.New("no go.mod, Cargo.toml, pom.xml, build.gradle, package.json, requirements.txt, pyproject.toml, *.py or index.html is here: name the kind of project with --type")

// Look finds out what the project in dir is. kind is its kind where somebody said so, name what it is called where its files do not say.
func Look(dir fs.FS, kind Kind, name string) (*Project, error) {
	p := &Project{Kind: kind, Name: name}
	if p.Kind == "" {
		p.Kind = detect(dir)
	}
	var err error
	switch p.Kind {
	case Go:
		err = p.goModule(dir)
	case Rust:
		err = p.rustCrate(dir)
	case Java:
		err = p.javaProject(dir)
	case Node:
		err = p.nodePackage(dir)
	case Python:
		err = p.pythonProject(dir)
	case Static:
		p.staticSite(dir)
	case "":
		return nil, ErrUnknown
	default:
		return nil, fmt.Errorf("unknown kind of project %q: %s", p.Kind, kindNames())
	}
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(p.Main, func(c rune) bool { return c <= ' ' || strings.ContainsRune("$`;&|\"'\\<>(){}", c) }) {
		return nil, fmt.Errorf("%q cannot be written into a Dockerfile as it is", p.Main)
	}
	if p.Name = plainName(p.Name); p.Name == "" {
		p.Name = "app"
	}
	return p, nil
}

func kindNames() string {
	var names []string
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

func detect(dir fs.FS) Kind {
	for _, c := range []struct {
		kind  Kind
		files []string
	}{
		{Go, []string{"go.mod"}},
		{Rust, []string{"Cargo.toml"}},
		{Java, []string{"pom.xml", "build.gradle", "build.gradle.kts"}},
		{Node, []string{"package.json"}},
		{Python, []string{"requirements.txt", "pyproject.toml", "setup.py", "app.py", "main.py"}},
		{Static, []string{"index.html", "public/index.html", "site/index.html", "dist/index.html"}},
	} {
		if slices.ContainsFunc(c.files, func(f string) bool { return exists(dir, f) }) {
			return c.kind
		}
	}
	if found, _ := fs.Glob(dir, "*.py"); len(found) > 0 {
		return Python
	}
	return ""
}

func exists(dir fs.FS, name string) bool {
	fi, err := fs.Stat(dir, name)
	return err == nil && fi.Mode().IsRegular()
}

// text is a file's text; "" when it is not there. Only small files are looked into.
func text(dir fs.FS, name string) string {
	fi, err := fs.Stat(dir, name)
	if err != nil || fi.Size() > 1<<20 {
		return ""
	}
	b, _ := fs.ReadFile(dir, name)
	return string(b)
}

// first gives what a pattern's first group finds in a text.
func first(text, pattern string) string {
	if m := regexp.MustCompile(pattern).FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// plainName makes of any text what a program, a service and an image may be called.
func plainName(s string) string {
	s = strings.ToLower(path.Base(strings.TrimSpace(s)))
	s = regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(s, "-")
	return strings.Trim(s, "-")
}

func (p *Project) assume(format string, args ...any) {
	p.Assumed = append(p.Assumed, fmt.Sprintf(format, args...))
}

// listens finds a port in the sources, where a project says it in one of the usual ways; otherwise it is the fallback, and said to be assumed.
func (p *Project) listens(dir fs.FS, suffixes []string, pattern string, fallback int) {
	found := 0
	looked := 0
	_ = fs.WalkDir(dir, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if d.IsDir() {
			if base := path.Base(name); name != "." && (strings.HasPrefix(base, ".") || slices.Contains([]string{"node_modules", "vendor", "target", "dist", "build", "venv", "test", "tests"}, base)) {
				return fs.SkipDir
			}
			return nil
		}
		if !slices.Contains(suffixes, path.Ext(name)) {
			return nil
		}
		if looked++; looked > 200 {
			return fs.SkipAll
		}
		if s := first(text(dir, name), pattern); s != "" {
			_, _ = fmt.Sscan(s, &found)
			return fs.SkipAll
		}
		return nil
	})
	if found > 0 && found < 65536 {
		p.Port = found
		return
	}
	p.Port = fallback
	p.assume("it listens on port %d", fallback)
}

func (p *Project) goModule(dir fs.FS) error {
	mod := text(dir, "go.mod")
	if m := first(mod, `(?m)^module\s+"?([^\s"]+)`); m != "" {
		p.Name = regexp.MustCompile(`/v\d+$`).ReplaceAllString(m, "")
	}
	p.Version = first(mod, `(?m)^go\s+(\d+\.\d+)`)
	p.Deps = exists(dir, "go.sum")
	p.Main = "."
	if !goMain(dir, ".") {
		var mains []string
		for _, pattern := range []string{"cmd/*", "*"} {
			found, _ := fs.Glob(dir, pattern)
			for _, f := range found {
				if goMain(dir, f) {
					mains = append(mains, f)
				}
			}
			if len(mains) > 0 {
				break
			}
		}
		if len(mains) == 0 {
			return errors.New("no package main is in this directory, below cmd or directly below: there is no program to build")
		}
		p.Main = "./" + mains[0]
		p.Name = mains[0]
		if len(mains) > 1 {
			p.assume("the program is %s, of %s", p.Main, strings.Join(mains, ", "))
		}
	}
	p.listens(dir, []string{".go"}, `(?:ListenAndServe|Listen|Addr)[^\n]*?:(\d{2,5})"`, 8080)
	return nil
}

func goMain(dir fs.FS, at string) bool {
	files, _ := fs.Glob(dir, path.Join(at, "*.go"))
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") && regexp.MustCompile(`(?m)^package main\b`).MatchString(text(dir, f)) {
			return true
		}
	}
	return false
}

func (p *Project) rustCrate(dir fs.FS) error {
	toml := text(dir, "Cargo.toml")
	p.Main = first(toml, `(?ms)^\[\[bin\]\].*?^name\s*=\s*"([^"]+)"`)
	if p.Main == "" {
		p.Main = first(toml, `(?ms)^\[package\].*?^name\s*=\s*"([^"]+)"`)
	}
	if p.Main == "" {
		return errors.New("no package is named in Cargo.toml: of a workspace, run init in the crate of the program")
	}
	if !exists(dir, "src/main.rs") && !strings.Contains(toml, "[[bin]]") {
		return errors.New("there is no src/main.rs, and no [[bin]] in Cargo.toml: there is no program to build")
	}
	p.Name = p.Main
	p.Version = first(toml, `(?m)^rust-version\s*=\s*"([0-9.]+)"`)
	p.Locked = exists(dir, "Cargo.lock")
	p.listens(dir, []string{".rs"}, `(?:bind|SocketAddr|Ipv4Addr|listen)[^\n]*?[:,]\s*(\d{2,5})\b`, 8080)
	return nil
}

func (p *Project) javaProject(dir fs.FS) error {
	p.Manager = "maven"
	if !exists(dir, "pom.xml") {
		p.Manager = "gradle"
	}
	switch p.Manager {
	case "maven":
		var pom struct {
			ArtifactID string `xml:"artifactId"`
			Version    string `xml:"version"`
			Properties struct {
				Release  string `xml:"maven.compiler.release"`
				Target   string `xml:"maven.compiler.target"`
				Language string `xml:"java.version"`
			} `xml:"properties"`
		}
		if err := xml.Unmarshal([]byte(text(dir, "pom.xml")), &pom); err != nil {
			return fmt.Errorf("pom.xml: %w", err)
		}
		p.Name = pom.ArtifactID
		for _, v := range []string{pom.Properties.Release, pom.Properties.Language, pom.Properties.Target} {
			if p.Version == "" && regexp.MustCompile(`^\d+$`).MatchString(v) {
				p.Version = v
			}
		}
		p.Wrapper = exists(dir, "mvnw")
		p.Main = "target/*.jar"
	case "gradle":
		build := text(dir, "build.gradle") + text(dir, "build.gradle.kts")
		settings := text(dir, "settings.gradle") + text(dir, "settings.gradle.kts")
		if n := first(settings, `rootProject\.name\s*=\s*["']([^"']+)`); n != "" {
			p.Name = n
		}
		p.Version = first(build, `(?:JavaLanguageVersion\.of\(|JavaVersion\.VERSION_|sourceCompatibility\s*=\s*['"]?)(\d+)`)
		p.Wrapper = exists(dir, "gradlew")
		p.Main = "build/libs/*.jar"
	}
	p.listens(dir, []string{".java", ".kt", ".properties", ".yml", ".yaml"}, `(?:server\.port\s*[=:]\s*|port:\s*|InetSocketAddress\(|\.listen\()(\d{2,5})`, 8080)
	return nil
}

func (p *Project) nodePackage(dir fs.FS) error {
	var pkg struct {
		Name            string            `json:"name"`
		Main            string            `json:"main"`
		Scripts         map[string]string `json:"scripts"`
		Engines         map[string]string `json:"engines"`
		Dependencies    map[string]string `json:"dependencies"`
		DevDependencies map[string]string `json:"devDependencies"`
		PackageManager  string            `json:"packageManager"`
	}
	if err := json.Unmarshal([]byte(text(dir, "package.json")), &pkg); err != nil {
		return fmt.Errorf("package.json: %w", err)
	}
	if pkg.Name != "" {
		p.Name = pkg.Name
	}
	p.Version = first(pkg.Engines["node"], `(\d+)`)
	if v := first(text(dir, ".nvmrc"), `(\d+)`); v != "" {
		p.Version = v
	}
	p.Deps = len(pkg.Dependencies)+len(pkg.DevDependencies) > 0
	p.Manager = "npm"
	switch {
	case exists(dir, "pnpm-lock.yaml") || strings.HasPrefix(pkg.PackageManager, "pnpm"):
		p.Manager, p.Locked = "pnpm", exists(dir, "pnpm-lock.yaml")
	case exists(dir, "yarn.lock") || strings.HasPrefix(pkg.PackageManager, "yarn"):
		p.Manager, p.Locked = "yarn", exists(dir, "yarn.lock")
	default:
		p.Locked = exists(dir, "package-lock.json") || exists(dir, "npm-shrinkwrap.json")
	}
	if _, ok := pkg.Scripts["build"]; ok {
		p.Script = "build"
	}
	switch {
	case pkg.Scripts["start"] != "":
		p.Start = strings.Fields(pkg.Scripts["start"])
		if p.Start[0] != "node" || strings.ContainsAny(pkg.Scripts["start"], "&|;$<>\"'") {
			p.Start = []string{p.Manager, "start"}
		}
	case pkg.Main != "":
		p.Start = []string{"node", pkg.Main}
	default:
		for _, f := range []string{"server.js", "index.js", "app.js", "src/index.js", "src/server.js", "main.js"} {
			if exists(dir, f) {
				p.Start = []string{"node", f}
				break
			}
		}
	}
	if p.Start == nil {
		if p.Script == "" {
			return errors.New("package.json has no start script and no main, and there is no server.js or index.js: there is nothing to run")
		}
		p.Main = "dist" // a site that is built, and served as files
		for _, d := range []string{"react-scripts", "gatsby"} {
			if pkg.Dependencies[d] != "" {
				p.Main = map[string]string{"react-scripts": "build", "gatsby": "public"}[d]
			}
		}
		p.Port = 80
		p.assume("npm run build writes the site into %s", p.Main)
		return nil
	}
	p.listens(dir, []string{".js", ".mjs", ".cjs", ".ts"}, `(?:\.listen\(|PORT\s*(?:\|\||\?\?)\s*|port\s*[:=]\s*)['"]?(\d{2,5})`, 3000)
	return nil
}

func (p *Project) pythonProject(dir fs.FS) error {
	toml := text(dir, "pyproject.toml")
	needs := text(dir, "requirements.txt") + toml
	if n := first(toml, `(?ms)^\[(?:project|tool\.poetry)\].*?^name\s*=\s*["']([^"']+)`); n != "" {
		p.Name = n
	}
	p.Version = first(text(dir, ".python-version"), `^(\d+\.\d+)`)
	if p.Version == "" {
		p.Version = first(toml, `requires-python\s*=\s*["'][^0-9]*(\d+\.\d+)`)
	}
	p.Manager = "pip"
	p.Deps = exists(dir, "requirements.txt")
	p.Package = !p.Deps && toml != "" && (strings.Contains(toml, "[build-system]") || strings.Contains(toml, "[project]"))
	for _, f := range []string{"app.py", "main.py", "server.py", "wsgi.py", "run.py", "src/app.py", "src/main.py"} {
		if exists(dir, f) {
			p.Main = f
			break
		}
	}
	django := exists(dir, "manage.py")
	if p.Main == "" && !django {
		found, _ := fs.Glob(dir, "*.py")
		found = slices.DeleteFunc(found, func(f string) bool { return f == "setup.py" || f == "conftest.py" })
		if len(found) == 0 {
			return errors.New("no program was found: app.py, main.py or another Python file in this directory")
		}
		p.Main = found[0]
		if len(found) > 1 {
			p.assume("the program is %s", p.Main)
		}
	}
	source := text(dir, p.Main)
	module := strings.TrimSuffix(strings.ReplaceAll(p.Main, "/", "."), ".py")
	object := first(source, `(?m)^(\w+)\s*=\s*(?:Flask|FastAPI|Starlette|Quart)\(`)
	has := func(name string) bool { return regexp.MustCompile(`(?im)(^|["'\s])` + name + `\b`).MatchString(needs) }
	p.Port = 8000
	switch {
	case django && has("gunicorn"):
		p.Start = []string{"gunicorn", "--bind", "0.0.0.0:8000", djangoModule(text(dir, "manage.py")) + ".wsgi"}
	case django:
		p.Start = []string{"python3", "manage.py", "runserver", "0.0.0.0:8000"}
		p.assume("without gunicorn in its requirements, Django's own server for development runs")
	case object != "" && has("uvicorn") && regexp.MustCompile(`FastAPI|Starlette|Quart`).MatchString(source):
		p.Start = []string{"uvicorn", module + ":" + object, "--host", "0.0.0.0", "--port", "8000"}
	case object != "" && has("gunicorn"):
		p.Start = []string{"gunicorn", "--bind", "0.0.0.0:8000", module + ":" + object}
	case object != "" && strings.Contains(source, "Flask(") && !strings.Contains(source, "__main__"):
		p.Start = []string{"python3", "-m", "flask", "--app", module, "run", "--host", "0.0.0.0", "--port", "8000"}
	default:
		p.Start = []string{"python3", p.Main}
		p.Port = 0
		p.listens(dir, []string{".py"}, `(?:port\s*=\s*|HTTPServer\(\(['"][^'"]*['"],\s*|\.bind\(\(['"][^'"]*['"],\s*|PORT\s*=\s*)(\d{2,5})`, 8000)
	}
	return nil
}

func djangoModule(manage string) string {
	if m := first(manage, `DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)\.settings`); m != "" {
		return m
	}
	return "config"
}

func (p *Project) staticSite(dir fs.FS) {
	p.Main = "."
	for _, d := range []string{"public", "site", "dist", "_site", "www"} {
		if !exists(dir, "index.html") && exists(dir, d+"/index.html") {
			p.Main = d
			break
		}
	}
	p.Port = 80
}
