package attest

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/json"
	"io"
	"strings"
)

// parseGem reads the specification of an installed Ruby package, which is Ruby. RubyGems begins it with a comment for readers like us, "# stub: NAME
// VERSION PLATFORM DIRECTORIES"; one without is read line by line, as far as values are plain texts.
func parseGem(raw []byte, found string) []Package {
	p := Package{Type: "gem", Found: found}
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if f := strings.Fields(strings.TrimPrefix(line, "# stub: ")); strings.HasPrefix(line, "# stub: ") && len(f) >= 2 && p.Name == "" {
			p.Name, p.Version = f[0], f[1]
		}
		key, value, ok := strings.Cut(line, "=")
		_, key, dotted := strings.Cut(strings.TrimSpace(key), ".")
		texts := rubyTexts(value)
		if !ok || !dotted || len(texts) == 0 {
			continue
		}
		switch {
		case key == "name" && p.Name == "":
			p.Name = texts[0]
		case key == "version" && p.Version == "":
			p.Version = texts[0]
		case key == "licenses" || key == "license":
			p.License = strings.Join(texts, " AND ")
		case key == "authors" || key == "author":
			p.Supplier = texts[0]
		}
	}
	if p.Name == "" || p.Version == "" || strings.ContainsAny(p.Name, "#{} ") {
		return nil
	}
	return []Package{p}
}

// rubyTexts gives the texts between double quotes.
func rubyTexts(s string) (list []string) {
	for len(list) < 20 {
		_, rest, ok := strings.Cut(s, `"`)
		text, rest, closed := strings.Cut(rest, `"`)
		if !ok || !closed {
			break
		}
		list, s = append(list, text), rest
	}
	return list
}

// composer is a package of PHP's.
type composer struct {
	Name    string
	Version string
	License any
	Authors []struct{ Name string }
}

// parseComposer reads what Composer has installed: a list, or since its second version an object with one.
func parseComposer(raw []byte, found string) (list []Package) {
	var all struct{ Packages []composer }
	if json.Unmarshal(raw, &all) != nil && json.Unmarshal(raw, &all.Packages) != nil {
		return nil
	}
	for _, c := range all.Packages {
		space, name, ok := strings.Cut(c.Name, "/")
		if !ok || name == "" || c.Version == "" {
			continue
		}
		p := Package{Type: "composer", Space: space, Name: name, Version: strings.TrimPrefix(c.Version, "v"), Found: found}
		if l, ok := c.License.([]any); ok {
			var texts []string
			for _, v := range l {
				if s, ok := v.(string); ok {
					texts = append(texts, s)
				}
			}
			p.License = strings.Join(texts, " OR ") // composer's schema: any of them
		}
		if len(c.Authors) > 0 {
			p.Supplier = c.Authors[0].Name
		}
		list = append(list, p)
	}
	return list
}

// Bounds of what a Rust program tells of itself, in bytes.
const (
	rustZipped = 1 << 20
	rustPlain  = 8 << 20
)

// parseRust reads which crates a Rust program is made of, where it was built to know (cargo auditable): JSON, compressed, in a section of its own.
func parseRust(f io.ReaderAt, found string) (list []Package) {
	defer func() {
		if recover() != nil { // debug/elf is not made for files that are meant to break it
			list = nil
		}
	}()
	r, ok := program(f)
	if !ok {
		return nil
	}
	file, err := elf.NewFile(r)
	if err != nil {
		return nil
	}
	section := file.Section(".dep-v0")
	if section == nil || section.Size > rustZipped {
		return nil
	}
	zipped, err := section.Data()
	if err != nil {
		return nil
	}
	z, err := zlib.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return nil
	}
	raw, err := io.ReadAll(io.LimitReader(z, rustPlain))
	if err != nil {
		return nil
	}
	var tree struct {
		Packages []struct{ Name, Version, Kind string }
	}
	if json.Unmarshal(raw, &tree) != nil {
		return nil
	}
	for _, p := range tree.Packages {
		if p.Name == "" || p.Kind == "build" || p.Kind == "development" { // not in the program
			continue
		}
		list = append(list, Package{Type: "cargo", Name: p.Name, Version: p.Version, Found: found})
	}
	return list
}
