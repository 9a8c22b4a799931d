package attest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"

	"berth/kernel/tree"
)

// Package is something installed in a tree.
type Package struct {
	Type     string // deb, apk, rpm, golang, pypi, npm, maven, gem, composer, cargo: as package URLs call it
	Space    string // the distribution, the group
	Name     string
	Version  string
	Epoch    string // of rpm, beside the version; "": none
	Arch     string // "": it does not say
	Distro   string // debian-13; "" for what no distribution made
	License  string // as the package says it; "": it does not
	Supplier string // who maintains it
	Found    string // the file that tells of it, from the root
}

// URL is the package's URL.
func (p *Package) URL() string {
	var q packageurl.Qualifiers
	if p.Arch != "" {
		q = append(q, packageurl.Qualifier{Key: "arch", Value: p.Arch})
	}
	if p.Distro != "" {
		q = append(q, packageurl.Qualifier{Key: "distro", Value: p.Distro})
	}
	if p.Epoch != "" {
		q = append(q, packageurl.Qualifier{Key: "epoch", Value: p.Epoch})
	}
	return packageurl.NewPackageURL(p.Type, p.Space, p.Name, p.Version, q, "").ToString()
}

// Bounds of what is read of a tree that may be anybody's.
const (
	databaseMax = 64 << 20 // bytes of one database
	metadataMax = 8 << 20  // bytes of what one package of a language says of itself
	packagesMax = 200_000
	fieldsMax   = 200       // of one package in a database
	textMax     = 2000      // bytes of one text that is taken over
	textsMax    = 128 << 20 // bytes of all texts
	depthMax    = 64
)

// scan is a scan under way.
type scan struct {
	ctx    context.Context
	root   *tree.Dir
	distro distro
	list   []Package
	texts  int // bytes in list
}

// distro is what /etc/os-release tells.
type distro struct{ id, version string }

func (d distro) String() string {
	if d.id == "" || d.version == "" {
		return d.id
	}
	return d.id + "-" + d.version
}

// Scan finds the packages in a tree: those of dpkg, apk and rpm, Go programs with their modules and Rust programs with their crates, and what pip, npm, Maven,
// RubyGems and Composer leave. What
// cannot be read is left out: a tree that is no distribution has no packages. Only the end of ctx is an error.
func Scan(ctx context.Context, root *tree.Dir) ([]Package, error) {
	s := &scan{ctx: ctx, root: root}
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		if raw := s.read(name); raw != nil {
			s.distro = parseRelease(raw)
			break
		}
	}
	s.dpkg()
	s.rpm()
	if raw := s.read("lib/apk/db/installed"); raw != nil {
		s.add(parseAPK(raw, s.distro, "/lib/apk/db/installed")...)
	}
	if err := s.walk(root, "", 0); err != nil {
		return nil, err
	}
	slices.SortFunc(s.list, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Found, b.Found))
	})
	return slices.CompactFunc(s.list, func(a, b Package) bool { return a.URL() == b.URL() }), nil
}

// add takes packages in, as far as there is room for them. One with a name or version that nobody would give is left out.
func (s *scan) add(list ...Package) {
	for _, p := range list {
		if len(s.list) >= packagesMax || s.texts > textsMax {
			return
		}
		if max(len(p.Space), len(p.Name), len(p.Version), len(p.Epoch), len(p.Arch), len(p.Distro)) > textMax {
			continue
		}
		p.License, p.Supplier = shorten(p.License), shorten(p.Supplier)
		for _, t := range []*string{&p.Space, &p.Name, &p.Version, &p.Epoch, &p.Arch, &p.Distro, &p.License, &p.Supplier} {
			*t = strings.Clone(*t) // it may be a part of much more
			s.texts += len(*t)
		}
		s.texts += len(p.Found)
		s.list = append(s.list, p)
	}
}

// shorten cuts a text that is only told.
func shorten(s string) string {
	if len(s) <= textMax {
		return s
	}
	return strings.ToValidUTF8(s[:textMax], "") + "…"
}

// read reads a database, or gives nil.
func (s *scan) read(name string) []byte { return s.readMost(name, databaseMax) }

func (s *scan) readMost(name string, most int64) []byte {
	f, err := s.root.OpenFile(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil
	}
	return raw
}

// dpkg reads Debian's database: one file, or where there is no dpkg one for each package.
func (s *scan) dpkg() {
	files := []string{"var/lib/dpkg/status"}
	if dir, _, err := s.root.Open("var/lib/dpkg/status.d"); err == nil {
		names, _ := dir.Names()
		dir.Close()
		slices.Sort(names)
		for _, n := range names {
			if !strings.HasSuffix(n, ".md5sums") {
				files = append(files, path.Join("var/lib/dpkg/status.d", n))
			}
		}
	}
	for _, f := range files {
		if raw := s.read(f); raw != nil {
			s.add(parseDpkg(raw, s.distro, "/"+f)...)
		}
	}
}

// parseRelease reads os-release(5).
func parseRelease(raw []byte) (d distro) {
	for line := range strings.Lines(string(raw)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		v = strings.Trim(v, `"'`)
		switch k {
		case "ID":
			d.id = v
		case "VERSION_ID":
			d.version = v
		}
	}
	return d
}

// stanzas calls f for each paragraph of "Field: value" lines, as far as there may be so many. Lines that begin with a space go on with the one
// before and are not wanted by anybody here.
func stanzas(raw []byte, f func(fields map[string]string)) {
	fields := map[string]string{}
	count := 0
	flush := func() {
		if len(fields) > 0 {
			count++
			f(fields)
			fields = map[string]string{}
		}
	}
	sc := bufio.NewScanner(bytes.NewReader(raw))
	sc.Buffer(nil, databaseMax)
	for count < packagesMax && sc.Scan() {
		line := sc.Text()
		switch {
		case line == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
		default:
			if k, v, ok := strings.Cut(line, ":"); ok && len(fields) < fieldsMax {
				fields[k] = strings.TrimSpace(v)
			}
		}
	}
	flush()
}

// parseDpkg reads dpkg's status: packages that are installed, or in the files of images without dpkg all.
func parseDpkg(raw []byte, d distro, found string) (list []Package) {
	stanzas(raw, func(f map[string]string) {
		if status, told := f["Status"]; f["Package"] == "" || told && !strings.HasSuffix(status, " installed") {
			return
		}
		list = append(list, Package{
			Type: "deb", Space: cmp.Or(d.id, "debian"), Name: f["Package"], Version: f["Version"], Arch: f["Architecture"], Distro: d.String(), Supplier: f["Maintainer"], Found: found,
		})
	})
	return list
}

// parseAPK reads Alpine's database, whose fields have one letter.
func parseAPK(raw []byte, d distro, found string) (list []Package) {
	stanzas(raw, func(f map[string]string) {
		if f["P"] == "" {
			return
		}
		list = append(list, Package{
			Type: "apk", Space: cmp.Or(d.id, "alpine"), Name: f["P"], Version: f["V"], Arch: f["A"], Distro: d.String(), License: f["L"], Supplier: f["m"], Found: found,
		})
	})
	return list
}
