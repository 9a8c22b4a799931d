package attest

import (
	"archive/zip"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"io"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	"berth/kernel/tree"
)

// Directories that hold nothing that was installed.
var notInstalled = []string{"proc", "sys", "dev", "run", "tmp"}

// walk looks at every file below dir.
func (s *scan) walk(dir *tree.Dir, at string, depth int) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if depth > depthMax || at != "" && !strings.Contains(at, "/") && slices.Contains(notInstalled, at) {
		return nil
	}
	names, err := dir.Names()
	if err != nil {
		return nil
	}
	slices.Sort(names)
	for _, name := range names {
		st, err := dir.Stat(name)
		if err != nil {
			continue
		}
		rel := path.Join(at, name)
		switch {
		case st.IsDir():
			sub, err := dir.Sub(name)
			if err != nil {
				continue
			}
			err = s.walk(sub, rel, depth+1)
			sub.Close()
			if err != nil {
				return err
			}
		case st.Type() == tree.TypeRegular:
			s.file(rel, st)
		}
	}
	return nil
}

// file looks at one file, by what it is called.
func (s *scan) file(rel string, st tree.Stat) {
	base, dir := path.Base(rel), path.Base(path.Dir(rel))
	switch {
	case base == "METADATA" && strings.HasSuffix(dir, ".dist-info"), base == "PKG-INFO" && strings.HasSuffix(dir, ".egg-info"):
		s.add(parsePython(s.readMost(rel, metadataMax), "/"+rel)...)
	case base == "package.json" && strings.Contains(rel, "node_modules/") && nodePackage(rel):
		s.add(parseNode(s.readMost(rel, metadataMax), "/"+rel)...)
	case strings.HasSuffix(base, ".gemspec") && (dir == "specifications" || dir == "default" && path.Base(path.Dir(path.Dir(rel))) == "specifications"):
		s.add(parseGem(s.readMost(rel, metadataMax), "/"+rel)...)
	case base == "installed.json" && dir == "composer":
		s.add(parseComposer(s.readMost(rel, metadataMax), "/"+rel)...)
	case strings.HasSuffix(base, ".jar"), strings.HasSuffix(base, ".war"):
		s.opened(rel, func(f *tree.File) { s.add(parseJar(f, st.Size, "/"+rel)...) })
	case st.Mode&0o111 != 0 && st.Size > 1<<16:
		s.opened(rel, func(f *tree.File) {
			s.add(parseGo(f, "/"+rel)...)
			s.add(parseRust(f, "/"+rel)...)
		})
	}
}

func (s *scan) opened(rel string, f func(*tree.File)) {
	file, err := s.root.OpenFile(rel)
	if err != nil {
		return
	}
	defer file.Close()
	f(file)
}

// nodePackage reports whether a package.json is a package's own: right below node_modules, or below a scope there.
func nodePackage(rel string) bool {
	parent := path.Dir(path.Dir(rel))
	return path.Base(parent) == "node_modules" || strings.HasPrefix(path.Base(parent), "@") && path.Base(path.Dir(parent)) == "node_modules"
}

// parsePython reads the head of a Python package's metadata (PEP 566).
func parsePython(raw []byte, found string) []Package {
	head, _, _ := bytes.Cut(raw, []byte("\n\n"))
	var list []Package
	stanzas(head, func(f map[string]string) {
		if f["Name"] != "" {
			name := strings.ToLower(strings.ReplaceAll(f["Name"], "_", "-"))
			list = append(list, Package{Type: "pypi", Name: name, Version: f["Version"], License: f["License"], Supplier: f["Author"], Found: found})
		}
	})
	return list
}

// parseNode reads a package.json.
func parseNode(raw []byte, found string) []Package {
	var m struct {
		Name, Version string
		License       any
	}
	if json.Unmarshal(raw, &m) != nil || m.Name == "" || m.Version == "" {
		return nil
	}
	license, _ := m.License.(string)
	space, name := "", m.Name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		space, name = name[:i], name[i+1:]
	}
	return []Package{{Type: "npm", Space: space, Name: name, Version: m.Version, License: license, Found: found}}
}

// parseGo reads which modules a Go program is made of, as its linker wrote it down.
func parseGo(f io.ReaderAt, found string) (list []Package) {
	defer func() {
		if recover() != nil { // debug/elf is not made for files that are meant to break it
			list = nil
		}
	}()
	r, ok := program(f)
	if !ok {
		return nil
	}
	info, err := buildinfo.Read(r)
	if err != nil {
		return nil
	}
	list = []Package{goModule("stdlib", strings.TrimPrefix(info.GoVersion, "go"), found)}
	if info.Main.Path != "" {
		list = append(list, goModule(info.Main.Path, info.Main.Version, found))
	}
	for _, m := range info.Deps {
		list = append(list, goModule(replaced(m).Path, replaced(m).Version, found))
	}
	return list
}

func replaced(m *debug.Module) *debug.Module {
	if m.Replace != nil {
		return m.Replace
	}
	return m
}

func goModule(name, version, found string) Package {
	space := ""
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		space, name = name[:i], name[i+1:]
	}
	return Package{Type: "golang", Space: space, Name: name, Version: version, Found: found}
}

// parseJar reads what Maven put into a Java archive.
func parseJar(f io.ReaderAt, size int64, found string) (list []Package) {
	zr, err := zip.NewReader(&pieces{f, archiveMax}, size)
	if err != nil {
		return nil
	}
	for _, e := range zr.File {
		if !strings.HasPrefix(e.Name, "META-INF/maven/") || path.Base(e.Name) != "pom.properties" {
			continue
		}
		r, err := e.Open()
		if err != nil {
			continue
		}
		raw, _ := io.ReadAll(io.LimitReader(r, 1<<16))
		r.Close()
		fields := map[string]string{}
		for line := range strings.Lines(string(raw)) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			fields[k] = v
		}
		if fields["artifactId"] != "" {
			list = append(list, Package{Type: "maven", Space: fields["groupId"], Name: fields["artifactId"], Version: fields["version"], Found: found})
		}
	}
	return list
}
