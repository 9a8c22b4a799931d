package request

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/console"
	"github.com/moby/buildkit/client"
)

// cacheOnly is the output that asks for none: the result stays in the engine's cache.
const cacheOnly = "cacheonly"

// An Output is where a build's result goes.
type Output struct {
	Type  string // image, registry, oci, docker, local, tar, cacheonly
	Dest  string // a path; "-" is the standard output; "" is the engine itself, where the type allows
	Attrs map[string]string
}

// ParseOutputs reads --output texts.
func ParseOutputs(values []string) ([]Output, error) {
	var all []Output
	for _, text := range values {
		if text == "" {
			continue
		}
		o, err := parseOutput(text)
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, nil
}

func parseOutput(text string) (Output, error) {
	o := Output{Attrs: map[string]string{}}
	if !strings.ContainsAny(text, `=,"`) { // a path alone
		if text == "-" {
			return Output{Type: client.ExporterTar, Dest: "-", Attrs: o.Attrs}, nil
		}
		return Output{Type: client.ExporterLocal, Dest: text, Attrs: o.Attrs}, nil
	}
	first := true
	err := pairs(text, func(k, v string, bare bool) error {
		plainPath := first && !bare && k+"="+v == text && !strings.HasPrefix(text, "type=")
		first = false
		if plainPath { // a directory with a '=' in its name
			o.Type, o.Dest = client.ExporterLocal, text
			return nil
		}
		if bare {
			return fmt.Errorf("invalid value %s", k)
		}
		switch key := strings.TrimSpace(strings.ToLower(k)); key {
		case "type":
			o.Type = v
		case "dest":
			o.Dest = v
		default:
			o.Attrs[key] = v
		}
		return nil
	})
	if err != nil {
		return o, err
	}
	if o.Type == "" {
		return o, errors.New("type is required for output")
	}
	return o, nil
}

// String is the text that ParseOutputs reads.
func (o Output) String() string {
	first := []string{"type=" + o.Type}
	if o.Dest != "" {
		first = append(first, "dest="+o.Dest)
	}
	return Join(first, o.Attrs)
}

// outputs gives the wire's entries for a Spec: what was asked with --output, --push and --load, with destinations checked and opened late.
func (s *Spec) outputs() ([]client.ExportEntry, error) {
	var entries []client.ExportEntry
	var stdout bool
	for _, o := range s.Outputs {
		e := client.ExportEntry{Type: o.Type, Attrs: maps.Clone(o.Attrs)}
		if e.Attrs == nil {
			e.Attrs = map[string]string{}
		}
		var file, dir bool
		switch o.Type {
		case client.ExporterLocal:
			dir = true
		case client.ExporterTar:
			file = true
		case client.ExporterOCI, client.ExporterDocker:
			packed, err := strconv.ParseBool(o.Attrs["tar"])
			file = packed || err != nil
			dir = !file
		case "registry":
			e.Type = client.ExporterImage
			onlyPush(e.Attrs)
		}
		if dir {
			if err := checkDir(e.Type, o.Dest); err != nil {
				return nil, err
			}
			e.OutputDir = o.Dest
		}
		if file {
			if o.Dest == "" && e.Type != client.ExporterDocker {
				o.Dest = "-"
			}
			if o.Dest == "-" {
				if stdout {
					return nil, errors.New("multiple outputs configured to write to stdout")
				}
				stdout = true
			}
			out, err := fileOutput(e.Type, o.Dest)
			if err != nil {
				return nil, err
			}
			e.Output = out
		}
		entries = append(entries, e)
	}
	if s.Push {
		entries = withPush(entries)
	}
	if s.Load {
		entries = withLoad(entries)
	}
	return entries, s.checkDelete(entries)
}

// onlyPush are the attributes of an image that goes to a registry and is not wanted here.
func onlyPush(attrs map[string]string) {
	attrs["push"] = "true"
	if _, ok := attrs["unpack"]; !ok {
		attrs["unpack"] = "false"
	}
}

func withPush(entries []client.ExportEntry) []client.ExportEntry {
	used := false
	for _, e := range entries {
		if e.Type == client.ExporterImage {
			onlyPush(e.Attrs)
			used = true
		}
	}
	if used {
		return entries
	}
	e := client.ExportEntry{Type: client.ExporterImage, Attrs: map[string]string{}}
	onlyPush(e.Attrs)
	return append(entries, e)
}

func withLoad(entries []client.ExportEntry) []client.ExportEntry {
	for _, e := range entries {
		if e.Type == client.ExporterDocker && e.Output == nil && e.OutputDir == "" {
			return entries
		}
	}
	return append(entries, client.ExportEntry{Type: client.ExporterDocker, Attrs: map[string]string{}})
}

func checkDir(kind, dest string) error {
	switch dest {
	case "":
		return fmt.Errorf("dest is required for %s exporter", kind)
	case "-":
		return fmt.Errorf("dest cannot be stdout for %s exporter", kind)
	}
	switch fi, err := os.Stat(dest); {
	case err != nil && !os.IsNotExist(err):
		return fmt.Errorf("invalid destination directory: %s: %w", dest, err)
	case err == nil && !fi.IsDir():
		return fmt.Errorf("destination directory %s is a file", dest)
	}
	return nil
}

// fileOutput gives what opens dest when the first byte comes, so that a failed build leaves no empty file; nil for "".
func fileOutput(kind, dest string) (func(map[string]string) (io.WriteCloser, error), error) {
	switch dest {
	case "":
		return nil, nil
	case "-":
		if _, err := console.ConsoleFromFile(os.Stdout); err == nil {
			return nil, fmt.Errorf("dest file is required for %s exporter. refusing to write to console", kind)
		}
		return func(map[string]string) (io.WriteCloser, error) { return os.Stdout, nil }, nil
	}
	switch fi, err := os.Stat(dest); {
	case err != nil && !os.IsNotExist(err):
		return nil, fmt.Errorf("invalid destination file: %s: %w", dest, err)
	case err == nil && fi.IsDir():
		return nil, fmt.Errorf("destination file %s is a directory", dest)
	}
	return func(map[string]string) (io.WriteCloser, error) { return &lateFile{path: dest}, nil }, nil
}

type lateFile struct {
	path string
	file *os.File
}

func (f *lateFile) Write(p []byte) (int, error) {
	if f.file == nil {
		if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
			return 0, err
		}
		file, err := os.Create(f.path)
		if err != nil {
			return 0, err
		}
		f.file = file
	}
	return f.file.Write(p)
}

func (f *lateFile) Close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}

// checkDelete keeps `type=local,mode=delete`, which empties its destination first, below the working directory unless it was allowed by name.
func (s *Spec) checkDelete(entries []client.ExportEntry) error {
	for _, e := range entries {
		if e.Type != client.ExporterLocal {
			continue
		}
		mode, err := client.ParseLocalExporterMode(e.Attrs["mode"])
		if err != nil {
			return err
		}
		if mode != client.LocalExporterModeDelete || s.allowsDelete() {
			continue
		}
		below, err := belowWorkingDir(e.OutputDir)
		if err != nil {
			return err
		}
		if !below {
			return fmt.Errorf("local output mode=delete for destination %q requires --allow=%s", e.OutputDir, localDelete)
		}
	}
	return nil
}

func belowWorkingDir(path string) (bool, error) {
	wd, err := os.Getwd()
	if err != nil {
		return false, err
	}
	if wd, err = filepath.EvalSymlinks(wd); err != nil {
		return false, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return false, err
	}
	path, err = evalExisting(path)
	if err != nil {
		return false, err
	}
	rel, err := filepath.Rel(wd, path)
	return err == nil && rel != "." && filepath.IsLocal(rel), nil
}

// evalExisting resolves the links of that part of path which exists.
func evalExisting(path string) (string, error) {
	rest := ""
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !os.IsNotExist(err) || filepath.Dir(path) == path {
			return "", err
		}
		rest = filepath.Join(filepath.Base(path), rest)
		path = filepath.Dir(path)
	}
}
