package expand

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
)

// Marker is the first line of a Dockerfile that wants to be expanded.
const Marker = "# berth:expand"

// Bounds on what a file may ask for.
const (
	maxDepth = 16      // of INCLUDE
	maxText  = 1 << 20 // bytes written
	maxTurns = 10_000  // of FOR, all together
	maxNest  = 100     // of IF and FOR
)

// A Source is a Dockerfile to expand.
type Source struct {
	Name string // what messages call it
	Text []byte
	Root string            // the directory that INCLUDE may read; "" is Dir
	Dir  string            // where the file stands, in Root
	Args map[string]string // build arguments
}

// A Place is a line of a file somebody wrote. Lines begin at 1.
type Place struct {
	File string
	Line int
}

// A Result is a plain Dockerfile.
type Result struct {
	Text  []byte
	Lines []Place           // for each line of Text, where it came from
	Files map[string][]byte // by name, what was read
}

// Wanted reports whether a Dockerfile's first line asks for expansion.
func Wanted(text []byte) bool {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return isMarker(string(line))
}

func isMarker(line string) bool {
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), "#")
	return ok && strings.TrimSpace(rest) == "berth:expand"
}

// An Error is what is wrong in a file, and where.
type Error struct {
	Place
	Text []byte // of the file
	Err  error
}

// Error tells the place and what is wrong there.
func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

// Unwrap gives what is wrong without the place.
func (e *Error) Unwrap() error { return e.Err }

// Source shows the place as errors of a build are shown.
func (e *Error) Source() *errdefs.Source {
	at := &pb.Position{Line: int32(e.Line)}
	return &errdefs.Source{Info: &pb.SourceInfo{Filename: e.File, Data: e.Text}, Ranges: []*pb.Range{{Start: at, End: at}}}
}

// Expand expands s.
func Expand(s Source) (*Result, error) {
	if s.Root == "" {
		s.Root = s.Dir
	}
	rel, err := filepath.Rel(s.Root, s.Dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(s.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	name := s.Name
	if name == "" {
		name = "Dockerfile"
	}
	x := &expander{root: root, scope: newScope(s.Args), out: Result{Files: map[string][]byte{}}}
	f := &file{name: name, dir: filepath.ToSlash(rel), text: s.Text}
	if err := x.file(f, nil); err != nil {
		return nil, err
	}
	x.out.Text = x.text.Bytes()
	return &x.out, nil
}

// Original leads a source of the plain file back to what somebody wrote. It gives src itself when it is about another file.
func (r *Result) Original(src *errdefs.Source) *errdefs.Source {
	if src == nil || src.Info == nil || !bytes.Equal(bytes.TrimSpace(src.Info.Data), bytes.TrimSpace(r.Text)) {
		return src
	}
	var ranges []*pb.Range
	file := ""
	for _, rg := range src.Ranges {
		for line := rg.Start.Line; line <= max(rg.Start.Line, rg.End.Line); line++ {
			if line < 1 || int(line) > len(r.Lines) {
				continue
			}
			p := r.Lines[line-1]
			if file == "" {
				file = p.File
			}
			if p.File != file { // a range in two files: the first has to do
				continue
			}
			at := &pb.Position{Line: int32(p.Line)}
			ranges = append(ranges, &pb.Range{Start: at, End: at})
		}
	}
	if file == "" {
		return src
	}
	return &errdefs.Source{Info: &pb.SourceInfo{Filename: file, Data: r.Files[file], Language: src.Info.Language}, Ranges: ranges}
}

// A file is one that is being expanded.
type file struct {
	name string // for messages
	dir  string // in the root, slashes
	text []byte
	from *file // who includes it
}

func (f *file) fail(line int, format string, args ...any) error {
	return &Error{Place: Place{f.name, line}, Text: f.text, Err: fmt.Errorf(format, args...)}
}

// A binding replaces $name in what it governs.
type binding struct{ name, value string }

type expander struct {
	root  *os.Root
	scope *scope
	out   Result
	text  bytes.Buffer
	turns int
	// escape is the character of the first file; those it includes have the same.
	escape rune
}

// file expands one file into the output.
func (x *expander) file(f *file, bound []binding) error {
	x.out.Files[f.name] = f.text
	items, escape, err := parse(f)
	if err != nil {
		return err
	}
	if x.escape == 0 {
		x.escape = escape
		x.scope.escape = escape
	}
	if escape != x.escape && len(items) > 0 {
		return f.fail(1, "its escape character is not that of the file that includes it")
	}
	return x.items(f, items, bound)
}

func (x *expander) items(f *file, items []item, bound []binding) error {
	for _, it := range items {
		if err := x.lead(f, it, bound); err != nil {
			return err
		}
		var err error
		switch it.kind {
		case plain:
			err = x.plain(f, it, bound)
		case include:
			err = x.include(f, it, bound)
		case choice:
			err = x.choose(f, it, bound)
		case loop:
			err = x.loop(f, it, bound)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lead writes the comments and empty lines before an item.
func (x *expander) lead(f *file, it item, bound []binding) error {
	for i, l := range it.lead {
		if isMarker(l) {
			continue // or a directive after it would be none, and the plain file would be expanded again
		}
		if err := x.write(f, it.line-len(it.lead)+i, l, bound); err != nil {
			return err
		}
	}
	return nil
}

// plain copies an instruction, and follows what it says about arguments.
func (x *expander) plain(f *file, it item, bound []binding) error {
	for i, l := range it.lines {
		if err := x.write(f, it.line+i, l, bound); err != nil {
			return err
		}
	}
	if it.node == nil {
		return nil
	}
	var err error
	switch strings.ToLower(it.node.Value) {
	case "arg":
		for n := it.node.Next; n != nil; n = n.Next {
			if err == nil {
				err = x.scope.declare(bind(n.Value, bound, x.escape))
			}
		}
	case "from":
		var words []string
		for n := it.node.Next; n != nil; n = n.Next {
			words = append(words, bind(n.Value, bound, x.escape))
		}
		err = x.scope.from(words)
	}
	if err != nil {
		return f.fail(it.line, "%w", err)
	}
	return nil
}

func (x *expander) write(f *file, line int, text string, bound []binding) error {
	text = bind(text, bound, x.escape)
	if x.text.Len()+len(text) > maxText {
		return f.fail(line, "the expanded Dockerfile is larger than %d bytes", maxText)
	}
	x.text.WriteString(text)
	x.text.WriteByte('\n')
	x.out.Lines = append(x.out.Lines, Place{f.name, line})
	return nil
}

func (x *expander) include(f *file, it item, bound []binding) error {
	words, err := x.scope.words(bind(it.rest, bound, x.escape))
	if err != nil {
		return f.fail(it.line, "INCLUDE: %w", err)
	}
	if len(words) == 0 {
		return f.fail(it.line, "INCLUDE needs a file: INCLUDE FILE [NAME=VALUE…]")
	}
	name := path.Join(f.dir, filepath.ToSlash(words[0]))
	if path.IsAbs(words[0]) || !filepath.IsLocal(filepath.FromSlash(name)) {
		return f.fail(it.line, "INCLUDE %s: only files below %s may be included", words[0], x.root.Name())
	}
	depth := 0
	for at := f; at != nil; at = at.from {
		if depth++; depth > maxDepth {
			return f.fail(it.line, "INCLUDE %s: files include each other more than %d deep", words[0], maxDepth)
		}
	}
	text, err := readBounded(x.root, filepath.FromSlash(name))
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return f.fail(it.line, "INCLUDE %s: %w", words[0], err)
	}
	// What the file is given replaces names in it; what governs us does not reach into it.
	var given []binding
	for _, w := range words[1:] {
		k, v, ok := strings.Cut(w, "=")
		if !ok || !isName(k) {
			return f.fail(it.line, "INCLUDE %s: %q is no NAME=VALUE", words[0], w)
		}
		given = append(given, binding{k, v})
	}
	return x.file(&file{name: name, dir: path.Dir(name), text: text, from: f}, given)
}

func readBounded(root *os.Root, name string) ([]byte, error) {
	fi, err := root.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, errors.New("it is no regular file")
	case fi.Size() > maxText:
		return nil, fmt.Errorf("it is larger than %d bytes", maxText)
	}
	return root.ReadFile(name)
}

func (x *expander) choose(f *file, it item, bound []binding) error {
	for _, b := range it.branches {
		if !b.otherwise {
			yes, err := x.scope.holds(bind(b.condition, bound, x.escape))
			if err != nil {
				return f.fail(b.line, "%w", err)
			}
			if !yes {
				continue
			}
		}
		return x.block(f, b, bound)
	}
	return nil
}

// block writes what a branch or loop governs, with the comments before its end.
func (x *expander) block(f *file, b branch, bound []binding) error {
	if err := x.items(f, b.items, bound); err != nil {
		return err
	}
	for i, l := range b.tail {
		if err := x.write(f, b.tailLine+i, l, bound); err != nil {
			return err
		}
	}
	return nil
}

func (x *expander) loop(f *file, it item, bound []binding) error {
	words, err := x.scope.words(bind(it.rest, bound, x.escape))
	if err != nil {
		return f.fail(it.line, "FOR: %w", err)
	}
	for _, w := range words {
		if x.turns++; x.turns > maxTurns {
			return f.fail(it.line, "FOR: more than %d turns", maxTurns)
		}
		inner := slices.DeleteFunc(slices.Clone(bound), func(b binding) bool { return b.name == it.name })
		if err := x.block(f, it.branches[0], append(inner, binding{it.name, w})); err != nil {
			return err
		}
	}
	return nil
}

// bind replaces $name and ${name} of bindings in text, except after the escape character.
func bind(text string, bound []binding, escape rune) string {
	if len(bound) == 0 || !strings.Contains(text, "$") {
		return text
	}
	values := map[string]string{}
	for _, b := range bound {
		values[b.name] = b.value
	}
	var out strings.Builder
	for i := 0; i < len(text); {
		if rune(text[i]) == escape && i+1 < len(text) {
			out.WriteString(text[i : i+2])
			i += 2
			continue
		}
		if text[i] != '$' {
			out.WriteByte(text[i])
			i++
			continue
		}
		name, length := variable(text[i:])
		if v, ok := values[name]; ok && length > 0 {
			out.WriteString(v)
			i += length
			continue
		}
		out.WriteByte('$')
		i++
	}
	return out.String()
}

// variable reads $name or ${name} at the beginning of text and gives the name and how long it is; 0 for anything else.
func variable(text string) (name string, length int) {
	braced := strings.HasPrefix(text, "${")
	start := 1
	if braced {
		start = 2
	}
	end := start
	for end < len(text) && nameByte(text[end], end == start) {
		end++
	}
	if end == start {
		return "", 0
	}
	if !braced {
		return text[start:end], end
	}
	if end < len(text) && text[end] == '}' {
		return text[start:end], end + 1
	}
	return "", 0
}

func nameByte(c byte, first bool) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || !first && '0' <= c && c <= '9'
}

func isName(s string) bool {
	for i := range len(s) {
		if !nameByte(s[i], i == 0) {
			return false
		}
	}
	return s != ""
}

// FileNames are the names of the files that were read, in order.
func (r *Result) FileNames() []string { return slices.Sorted(maps.Keys(r.Files)) }
