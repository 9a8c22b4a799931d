package berth

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"berth/kernel/probe"
)

var update = flag.Bool("update", false, "write what is generated into the documents")

// module is the path every import of our own begins with.
const module = "berth"

// A floor is a row of the house: its rooms may import what lies below, and nothing beside.
type floor struct {
	number int
	rooms  []string
}

// The house, top to bottom, as drawn in docs/house.md.
var floors = []floor{
	{8, []string{"cmd"}},
	{7, []string{"cli", "web"}},
	{6, []string{"compose", "machine"}},
	{5, []string{"api"}},
	{4, []string{"cluster"}},
	{3, []string{"engine", "build", "registry"}},
	{2, []string{"image", "network", "volume", "runtime", "auth"}},
	{1, []string{"kernel"}},
	{0, []string{"base"}},
}

// Above the wire (floors 6 and 7) only these are visible of what lies below it.
var overTheWire = []string{"base", "api/client", "api/types"}

// Commands with a diet: what each may link of our own, directly or not.
var diets = map[string][]string{
	"cmd/berth":         {"cli", "compose/file", "machine", "api/client", "api/types", "base"},
	"cmd/berth-compose": {"compose", "base"},
	"cmd/berth-keeper":  {"runtime", "kernel", "base"},
	"cmd/berth-oci":     {"runtime", "kernel", "base"},
	"cmd/berth-init":    {},
}

// Imports from outside that belong to some rooms only, by prefix. Wire types stop at the doors.
var confined = map[string][]string{
	"github.com/moby/moby/api":               {"api", "cli", "compose", "machine", "test"},
	"github.com/moby/moby/client":            {"api", "cli", "compose", "machine", "test"},
	"github.com/docker/cli":                  {"cli", "compose", "test"},
	"github.com/compose-spec/compose-go":     {"compose/load"}, // its package start costs 7 ms; see compose/file
	"github.com/docker/docker":               {},
	"github.com/opencontainers/cgroups":      {},
	"github.com/opencontainers/runtime-spec": {"kernel", "runtime", "engine", "build/exec", "api/cri", "cmd/berth-oci", "cmd/berthd", "test"},
	"github.com/godbus/dbus":                 {"kernel/cgroup/systemd"},
	"github.com/sirupsen/logrus":             {"cli", "api/buildkit", "build", "cluster", "compose"},
	"k8s.io/cri-api":                         {"api/cri", "test"},
	// BuildKit is a library for the language and the wire; what builds there is only compared with.
	"github.com/moby/buildkit/cache":                {"test"},
	"github.com/moby/buildkit/control":              {"test"},
	"github.com/moby/buildkit/snapshot":             {"test"},
	"github.com/moby/buildkit/solver/llbsolver/ops": {"test"},
	"github.com/moby/buildkit/worker":               {"test"},
	"log":                                           {},
	"C":                                             {},
}

// Raw system calls, assembly and linkname live here and nowhere else.
var rawRooms = []string{"kernel", "runtime/launch"}

// cli/tree imports packages of docker/cli for their side effect and reads the list they fill by its
// linker name: docs/decisions/0003-command-line.md says why. It is the only such place.
var sideEffects = []string{"cli/tree"}

var rawCalls = []string{"Syscall", "Syscall6", "Syscall9", "RawSyscall", "RawSyscall6", "SyscallNoError", "RawSyscallNoError", "SyscallN", "RawVforkSyscall"}

// Names that say nothing about what a package owns.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "lib"}

// A source is one Go file of the repository, parsed.
type source struct {
	path string // relative to the root, slashes
	dir  string
	file *ast.File
	fset *token.FileSet
}

func (s *source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

// imports gives the import paths of the file.
func (s *source) imports() []string {
	var paths []string
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

func (s *source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

// within reports whether dir is one of rooms or inside one.
func within(dir string, rooms []string) bool {
	return slices.ContainsFunc(rooms, func(r string) bool { return dir == r || strings.HasPrefix(dir, r+"/") })
}

// room gives a directory's first element and its floor; false for what has none (test, examples, the root).
func room(dir string) (string, int, bool) {
	name, _, _ := strings.Cut(dir, "/")
	for _, f := range floors {
		if slices.Contains(f.rooms, name) {
			return name, f.number, true
		}
	}
	return name, 0, false
}

// plan draws the house for the reader of a failure.
func plan() string {
	var b strings.Builder
	b.WriteString("the house (docs/house.md); imports go down only:\n")
	for _, f := range floors {
		fmt.Fprintf(&b, "  %d  %s\n", f.number, strings.Join(f.rooms, " "))
		if f.number == 6 {
			fmt.Fprintf(&b, "     ── the wire: above it only %s are visible ──\n", strings.Join(overTheWire, ", "))
		}
	}
	return b.String()
}

// forbidden says why a package in from must not import our package in to; "" when it may.
func forbidden(from, to string) string {
	fromRoom, fromFloor, ok := room(from)
	if !ok {
		return "" // tests and examples look where they like
	}
	toRoom, toFloor, ok := room(to)
	switch {
	case !ok:
		return "rooms do not import test or example code"
	case fromRoom == toRoom && fromRoom != "cmd":
		return ""
	case toFloor == fromFloor:
		return fmt.Sprintf("%s and %s are on one floor and do not know each other: put a small value below both, or declare an interface and plug it in at cmd/berthd", fromRoom, toRoom)
	case toFloor > fromFloor:
		return fmt.Sprintf("%s is above %s", toRoom, fromRoom)
	case (fromFloor == 6 || fromFloor == 7) && toFloor < 6 && !within(to, overTheWire):
		return fmt.Sprintf("%s is above the wire and sees only %s below it", fromRoom, strings.Join(overTheWire, ", "))
	}
	return ""
}

func TestForbiddenItself(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"engine/container", "runtime/keeper", true},
		{"engine", "base/fault", true},
		{"runtime/launch", "engine", false},
		{"image/layer", "runtime/spec", false},
		{"image/layer", "kernel/mount", true},
		{"cli", "engine/container", false},
		{"cli", "api/client", true},
		{"cli", "api/server", false},
		{"cli", "compose/plan", true},
		{"cmd/berthd", "engine", true},
		{"cmd/berthd", "cmd/berth", false},
		{"api/server", "cli", false},
		{"kernel/mount", "test/script", false},
		{"test/script", "engine", true},
		{"base/id", "kernel/mount", false},
		{"network", "auth", false},
		{"registry", "auth", true},
	} {
		if got := forbidden(c.from, c.to); (got == "") != c.ok {
			t.Errorf("%s importing %s: %q, want allowed = %v", c.from, c.to, got, c.ok)
		}
	}
}

func TestImportsGoDown(t *testing.T) {
	broken := false
	for _, s := range sources(t) {
		for _, p := range s.imports() {
			to, ours := strings.CutPrefix(p, module+"/")
			if !ours {
				continue
			}
			if s.test() && within(to, []string{"test"}) {
				continue
			}
			if why := forbidden(s.dir, to); why != "" {
				broken = true
				t.Errorf("%s imports %s: %s", s.path, p, why)
			}
		}
	}
	if broken {
		t.Log("\n" + plan())
	}
}

func TestCommandsKeepTheirDiet(t *testing.T) {
	edges := map[string][]string{} // package directory -> our packages it imports, tests left out
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, p := range s.imports() {
			if to, ours := strings.CutPrefix(p, module+"/"); ours {
				edges[s.dir] = append(edges[s.dir], to)
			}
		}
	}
	for command, allowed := range diets {
		cameFrom := map[string]string{command: ""}
		for queue := []string{command}; len(queue) > 0; queue = queue[1:] {
			at := queue[0]
			if at != command && !within(at, allowed) {
				t.Errorf("%s links %s, by way of %s; it may link only %s", command, at, cameFrom[at], strings.Join(allowed, ", "))
				continue
			}
			for _, to := range edges[at] {
				if _, seen := cameFrom[to]; !seen {
					cameFrom[to] = at
					queue = append(queue, to)
				}
			}
		}
	}
}

func TestOutsideImportsStayInTheirRooms(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue // a test may ask anybody for a second opinion
		}
		for _, p := range s.imports() {
			for prefix, rooms := range confined {
				here := p == prefix || strings.HasPrefix(p, prefix+"/") && p != "log/slog"
				if here && !within(s.dir, rooms) {
					t.Errorf("%s imports %s, which is for %v only", s.path, p, rooms)
				}
			}
		}
	}
}

func TestRawSystemCallsHaveOneHome(t *testing.T) {
	for _, s := range sources(t) {
		if within(s.dir, rawRooms) || within(s.dir, []string{"test"}) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || !slices.Contains(rawCalls, sel.Sel.Name) {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && (pkg.Name == "syscall" || pkg.Name == "unix") {
				t.Errorf("%s: %s.%s: raw system calls live in %s", s.at(n), pkg.Name, sel.Sel.Name, strings.Join(rawRooms, " and "))
			}
			return true
		})
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if strings.HasPrefix(c.Text, "//go:linkname") && !within(s.dir, sideEffects) {
					t.Errorf("%s: go:linkname belongs to %s", s.at(c), strings.Join(rawRooms, " and "))
				}
			}
		}
	}
	for _, p := range files(t) {
		if strings.HasSuffix(p, ".s") && !within(path.Dir(p), rawRooms) && !within(path.Dir(p), sideEffects) {
			t.Errorf("%s: assembly belongs to %s", p, strings.Join(rawRooms, " and "))
		}
	}
}

func TestEveryPackageSaysWhatItOwns(t *testing.T) {
	comments := map[string]string{}
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		if slices.Contains(emptyNames, path.Base(s.dir)) {
			t.Errorf("%s: a package is a noun with a sentence; %q says nothing", s.dir, path.Base(s.dir))
		}
		comments[s.dir] += s.file.Doc.Text()
	}
	for _, dir := range keys(comments) {
		if len(strings.Fields(comments[dir])) < 5 {
			t.Errorf("package %s has no package comment: say in doc.go what it owns and what it never does", dir)
		}
	}
}

// A mutable world that appears by importing is what rule 8 forbids; init functions and imports for
// their side effect are how it appears.
func TestNothingHappensByImport(t *testing.T) {
	embeds := []string{"embed", "crypto/sha256", "crypto/sha512", "unsafe"}
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" && !locksMainThread(f) {
				t.Errorf("%s: no init functions: wire by hand", s.at(f))
			}
		}
		for _, i := range s.file.Imports {
			p, _ := strconv.Unquote(i.Path.Value)
			if i.Name != nil && i.Name.Name == "_" && !slices.Contains(embeds, p) && !within(s.dir, sideEffects) {
				t.Errorf("%s: import of %s for its side effect", s.at(i), p)
			}
		}
	}
}

// locksMainThread reports whether all that f does is runtime.LockOSThread(): nothing but an init function
// can make main run on the process's main thread.
func locksMainThread(f *ast.FuncDecl) bool {
	if len(f.Body.List) != 1 {
		return false
	}
	stmt, ok := f.Body.List[0].(*ast.ExprStmt)
	if !ok {
		return false
	}
	call, ok := stmt.X.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "LockOSThread"
}

func TestExportedNamesAreCommented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || s.file.Name.Name == "main" {
			continue
		}
		for _, d := range s.file.Decls {
			for _, name := range bare(d, documented(s.file)) {
				t.Errorf("%s: exported %s has no comment", s.at(d), name)
			}
		}
	}
}

// documented gives the names of a file's types that have a comment.
func documented(f *ast.File) map[string]bool {
	types := map[string]bool{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range g.Specs {
			if t, ok := spec.(*ast.TypeSpec); ok {
				types[t.Name.Name] = g.Doc != nil || t.Doc != nil || t.Comment != nil
			}
		}
	}
	return types
}

// bare gives the exported names that d declares without a comment. A comment on a group speaks for
// its members, as do end-of-line comments; the constants of a type that is documented in the same file
// (Running Status = "running") need none.
func bare(d ast.Decl, types map[string]bool) []string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
			return []string{d.Name.Name}
		}
	case *ast.GenDecl:
		var names []string
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
					names = append(names, spec.Name.Name)
				}
			case *ast.ValueSpec:
				if id, ok := spec.Type.(*ast.Ident); ok && d.Tok == token.CONST && types[id.Name] {
					continue
				}
				for _, n := range spec.Names {
					if n.IsExported() && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
						names = append(names, n.Name)
					}
				}
			}
		}
		return names
	}
	return nil
}

// exportedReceiver reports whether f is a function, or a method on an exported type.
func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return true
	}
	e := f.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

// Where a thing was fetched from on the machine that built it is nobody's business later: hosts of
// package registries and paths of a build machine do not belong in the repository. The words are
// built from parts so that this file does not hold them.
func TestNoForeignHostsOrPaths(t *testing.T) {
	dot := func(parts ...string) string { return strings.Join(parts, ".") }
	words := []string{
		dot("proxy", "golang", "org"), dot("sum", "golang", "org"),
		dot("registry", "npmjs", "org"), dot("pypi", "org"), dot("files", "pythonhosted", "org"),
		dot("deb", "debian", "org"), dot("ftp", "debian", "org"), dot("security", "debian", "org"), dot("snapshot", "debian", "org"),
		dot("archive", "ubuntu", "com"), dot("static", "crates", "io"), dot("rubygems", "org"), dot("repo", "maven", "apache", "org"),
		"/" + "work" + "/main", "/" + "work" + "/shared", "/" + "tmp" + "/plan",
	}
	for _, p := range files(t) {
		data, err := os.ReadFile(filepath.FromSlash(p))
		if err != nil {
			continue // deleted since the listing
		}
		for _, w := range words {
			if i := strings.Index(string(data), w); i >= 0 {
				t.Errorf("%s:%d: holds %q", p, 1+strings.Count(string(data[:i]), "\n"), w)
			}
		}
	}
}

// The documents are read by people who follow their links.
func TestDocumentsLinkToWhatIsThere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	all := files(t)
	linked := map[string]bool{"README.md": true, "CHANGELOG.md": true}
	for _, p := range all {
		if !strings.HasSuffix(p, ".md") {
			continue
		}
		data, err := os.ReadFile(filepath.FromSlash(p))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			to := path.Join(path.Dir(p), m[1])
			if _, err := os.Stat(filepath.FromSlash(to)); err != nil {
				t.Errorf("%s links to %s, which is not there", p, m[1])
			}
			linked[to] = true
			linked[path.Join(to, "README.md")] = true
		}
	}
	for _, p := range all {
		if strings.HasPrefix(p, "docs/") && strings.HasSuffix(p, ".md") && !linked[p] {
			t.Errorf("no document links to %s", p)
		}
	}
}

// docs/kernel.md shows the list of facilities that the code has.
func TestKernelDocumentIsCurrent(t *testing.T) {
	var listing strings.Builder
	if err := probe.Assume().WriteTable(&listing); err != nil {
		t.Fatal(err)
	}
	gap := regexp.MustCompile(` {2,}`)
	table := "| facility | since | what for, and the way without it |\n|---|---|---|\n"
	for i, line := range strings.Split(strings.TrimSpace(listing.String()), "\n") {
		cells := gap.Split(line, -1)
		if i == 0 || len(cells) < 4 { // the heading, and what is no row
			continue
		}
		since := cells[1]
		if since == "0.0" || since == "-" {
			since = ""
		}
		table += "| `" + cells[0] + "` | " + since + " | " + cells[len(cells)-1] + " |\n"
	}
	const page, begin, end = "docs/kernel.md", "-update\" -->\n", "<!-- end -->"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+table+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != table {
		t.Errorf("%s is not current: go test . -run Kernel -update", page)
	}
}

// files lists every file of the repository, builds and caches left out.
func files(t *testing.T) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // vanished while we looked
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".ci" || d.Name() == "bin" || d.Name() == "vendor") {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() && !strings.HasSuffix(p, ".test") { // go test -c leaves those
			list = append(list, filepath.ToSlash(p))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// sources parses every Go file of the module, for whichever system it is meant. Test data and other
// modules (a directory with a go.mod of its own) are left out.
func sources(t *testing.T) []*source {
	t.Helper()
	all := files(t)
	var foreign []string
	for _, p := range all {
		if path.Base(p) == "go.mod" && p != "go.mod" {
			foreign = append(foreign, path.Dir(p))
		}
	}
	var parsed []*source
	fset := token.NewFileSet()
	for _, p := range all {
		dir := path.Dir(p)
		if !strings.HasSuffix(p, ".go") || within(dir, foreign) || strings.Contains("/"+dir+"/", "/testdata/") {
			continue
		}
		f, err := parser.ParseFile(fset, filepath.FromSlash(p), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if generator(f) {
			continue
		}
		parsed = append(parsed, &source{path: p, dir: dir, file: f, fset: fset})
	}
	return parsed
}

// generator reports whether f is a program that is run by go generate only and built into nothing.
func generator(f *ast.File) bool {
	for _, group := range f.Comments {
		if group.Pos() < f.Package && strings.HasPrefix(group.List[0].Text, "//go:build ignore") {
			return true
		}
	}
	return false
}

func keys(m map[string]string) []string {
	var k []string
	for name := range m {
		k = append(k, name)
	}
	sort.Strings(k)
	return k
}
