package starter

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

//go:embed templates
var templates embed.FS

// A File is one to write, with its path from the project's directory.
type File struct {
	Name string
	Text string
}

// Files gives the project's Dockerfile, .dockerignore and compose.yaml.
func (p *Project) Files() ([]File, error) {
	t, err := template.New("").Funcs(template.FuncMap{
		"exec": execForm,
		"default": func(standard, v string) string {
			if v == "" {
				return standard
			}
			return v
		},
	}).ParseFS(templates, "templates/*")
	if err != nil {
		return nil, err
	}
	var files []File
	for _, f := range [][2]string{{"Dockerfile", string(p.Kind) + ".Dockerfile"}, {".dockerignore", string(p.Kind) + ".dockerignore"}, {"compose.yaml", "compose.yaml"}} {
		var b strings.Builder
		if err := t.ExecuteTemplate(&b, f[1], p); err != nil {
			return nil, err
		}
		files = append(files, File{f[0], b.String()})
	}
	return files, nil
}

// Published is the port of the machine that stands for the project's own: what only root may listen on moves up by 8000.
func (p *Project) Published() int {
	if p.Port < 1024 {
		return p.Port + 8000
	}
	return p.Port
}

// execForm writes a command as JSON, as Dockerfiles have it.
func execForm(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// other names are as good as ours: where one is there, the project has such a file.
func taken(dir, name string) string {
	names := []string{name}
	switch name {
	case "compose.yaml":
		names = append(names, "compose.yml", "docker-compose.yaml", "docker-compose.yml")
	case "Dockerfile":
		names = append(names, "dockerfile", "Containerfile")
	}
	i := slices.IndexFunc(names, func(n string) bool { _, err := os.Lstat(filepath.Join(dir, n)); return err == nil })
	if i < 0 {
		return ""
	}
	return names[i]
}

// Write writes the files that are not there and gives the names of those it wrote, and of those it found.
func Write(dir string, files []File) (wrote, found []string, err error) {
	for _, f := range files {
		if have := taken(dir, f.Name); have != "" {
			found = append(found, have)
			continue
		}
		out, err := os.OpenFile(filepath.Join(dir, f.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			found = append(found, f.Name)
			continue
		}
		if err != nil {
			return wrote, found, err
		}
		_, err = out.WriteString(f.Text)
		if closed := out.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return wrote, found, err
		}
		wrote = append(wrote, f.Name)
	}
	return wrote, found, nil
}
