package sink

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"

	"berth/base/fault"
)

// Info is what a collector is told of a container. Fields and methods have the names that Docker's tag templates use.
type Info struct {
	ContainerID         string
	ContainerName       string // with a leading slash
	ContainerEntrypoint string
	ContainerArgs       []string
	ContainerImageID    string
	ContainerImageName  string
	ContainerCreated    time.Time
	ContainerEnv        []string
	ContainerLabels     map[string]string
	DaemonName          string
	Config              map[string]string // the log options
}

// ID is the short id.
func (i *Info) ID() string { return short(i.ContainerID) }

// FullID is the id.
func (i *Info) FullID() string { return i.ContainerID }

// Name is the container's name.
func (i *Info) Name() string { return strings.TrimPrefix(i.ContainerName, "/") }

// ImageID is the image's short id.
func (i *Info) ImageID() string { return short(strings.TrimPrefix(i.ContainerImageID, "sha256:")) }

// ImageFullID is the image's id.
func (i *Info) ImageFullID() string { return i.ContainerImageID }

// ImageName is the image as it was asked for.
func (i *Info) ImageName() string { return i.ContainerImageName }

// Command is the command line.
func (i *Info) Command() string {
	return strings.Join(append([]string{i.ContainerEntrypoint}, i.ContainerArgs...), " ")
}

// Hostname is the machine's name.
func (i *Info) Hostname() (string, error) { return os.Hostname() }

func short(s string) string { return s[:min(len(s), 12)] }

// DefaultTag is the template of the tag where the driver has one in any case.
const DefaultTag = "{{.ID}}"

// Tag expands the option tag. Without that option it is what standard says, a template too.
func (i *Info) Tag(standard string) (string, error) {
	text := i.Config["tag"]
	if text == "" {
		text = standard
	}
	if text == "" {
		return "", nil
	}
	t, err := template.New("log-tag").Funcs(tagFuncs).Parse(text)
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "log opt tag")
	}
	var b tagText
	if err := t.Execute(&b, i); err != nil {
		return "", fault.Wrap(fault.Invalid, err, "log opt tag")
	}
	return string(b), nil
}

// maxTag bounds a tag, in bytes: it goes with every line.
const maxTag = 8 << 10

// tagText takes what a template writes.
type tagText []byte

// Write takes more, up to maxTag in all.
func (t *tagText) Write(b []byte) (int, error) {
	if len(*t)+len(b) > maxTag {
		return 0, fault.New(fault.Invalid, "the tag has more than %d bytes", maxTag)
	}
	*t = append(*t, b...)
	return len(b), nil
}

// tagFuncs are the functions that Docker's templates have.
var tagFuncs = template.FuncMap{
	"json": func(v any) string {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if e.Encode(v) != nil {
			return ""
		}
		return strings.TrimSpace(b.String())
	},
	"split": strings.Split,
	"join":  strings.Join,
	"title": func(s string) string {
		if s == "" {
			return s
		}
		return strings.ToUpper(s[:1]) + s[1:]
	},
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"pad": func(s string, before, after int) string {
		if s == "" {
			return s
		}
		before, after = max(0, min(before, maxTag)), max(0, min(after, maxTag)) // more is no tag
		return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
	},
	"truncate": func(s string, n int) string {
		r := []rune(s)
		return string(r[:max(0, min(n, len(r)))])
	},
	"println": func(a ...any) string { return strings.Trim(strings.Join(texts(a), " "), "\n") + "\n" },
}

func texts(a []any) (out []string) {
	for _, v := range a {
		b, _ := json.Marshal(v)
		out = append(out, strings.Trim(string(b), `"`))
	}
	return out
}

// Attr is one label or variable that the options ask for.
type Attr struct{ Key, Value string }

// Attrs picks the labels and variables that the options labels, labels-regex, env and env-regex ask for, sorted by name. Later kinds win, as in
// Docker: labels, then env. rename, which may be nil, makes the keys what the collector can take; "" leaves one out.
func (i *Info) Attrs(rename func(string) string) ([]Attr, error) {
	labels, env := i.Config["labels"], i.Config["env"]
	var expr [2]*regexp.Regexp
	for n, name := range []string{"labels-regex", "env-regex"} {
		if text := i.Config[name]; text != "" {
			var err error
			if expr[n], err = regexp.Compile(text); err != nil {
				return nil, fault.Wrap(fault.Invalid, err, "log opt %s", name)
			}
		}
	}
	picked := map[string]string{}
	pick := func(list string, re *regexp.Regexp, name, value string) {
		if !(list != "" && slices.Contains(strings.Split(list, ","), name) || re != nil && re.MatchString(name)) {
			return
		}
		if rename != nil {
			name = rename(name)
		}
		if name != "" {
			picked[name] = value
		}
	}
	for name, v := range i.ContainerLabels {
		pick(labels, expr[0], name, v)
	}
	for _, kv := range i.ContainerEnv {
		if name, v, ok := strings.Cut(kv, "="); ok {
			pick(env, expr[1], name, v)
		}
	}
	all := make([]Attr, 0, len(picked))
	for k, v := range picked {
		all = append(all, Attr{k, v})
	}
	slices.SortFunc(all, func(a, b Attr) int { return strings.Compare(a.Key, b.Key) })
	return all, nil
}
