package runline

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"berth/base/fault"
)

// Option is one flag of a line, without its dashes.
type Option struct {
	Flag  string
	Value string
	Bare  bool // a flag without a value: --privileged
}

// Line is a command line.
type Line struct {
	Options []Option
	Image   string
	Args    []string // what is run in the container; nil: what the image says
	Notes   []string // what it cannot say
}

func (l *Line) add(flag, value string) {
	l.Options = append(l.Options, Option{Flag: flag, Value: value})
}

func (l *Line) bare(flag string) { l.Options = append(l.Options, Option{Flag: flag, Bare: true}) }

func (l *Line) note(text string) { l.Notes = append(l.Notes, text) }

// String gives the option as one types it.
func (o Option) String() string {
	if o.Bare {
		return "--" + o.Flag
	}
	return "--" + o.Flag + "=" + o.Value
}

// Words gives the line's arguments, after "docker run".
func (l Line) Words() (words []string) {
	for _, o := range l.Options {
		words = append(words, o.String())
	}
	if len(l.Args) > 0 && strings.HasPrefix(l.Image, "-") {
		words = append(words, "--")
	}
	return append(append(words, l.Image), l.Args...)
}

// Shell gives the line as text for a shell, one option a line, after its first words ("docker run"). Notes come first, as comments.
func (l Line) Shell(first string) string {
	var b strings.Builder
	for _, n := range l.Notes {
		b.WriteString("# " + strings.ReplaceAll(n, "\n", " ") + "\n")
	}
	b.WriteString(first)
	for _, o := range l.Options {
		b.WriteString(" \\\n  " + quoteOption(o))
	}
	b.WriteString(" \\\n  " + Quote(l.Image))
	for _, a := range l.Args {
		b.WriteString(" " + Quote(a))
	}
	return b.String() + "\n"
}

func quoteOption(o Option) string {
	if o.Bare {
		return "--" + o.Flag
	}
	return "--" + o.Flag + "=" + Quote(o.Value)
}

// Quote gives a word as a shell reads it back.
func Quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:,=@%+", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Parse reads one flag as somebody typed it after --with: "--memory 1g", "memory=1g", "-e A=b". flags are those of docker create.
func Parse(text string, flags *pflag.FlagSet) (Option, error) {
	text = strings.TrimSpace(text)
	dashes := len(text) - len(strings.TrimLeft(text, "-"))
	name, value, hasValue := text[dashes:], "", false
	if i := strings.IndexAny(name, "= "); i >= 0 {
		name, value, hasValue = name[:i], strings.TrimSpace(name[i+1:]), true
	}
	f := flags.Lookup(name)
	if f == nil && len(name) == 1 {
		f = flags.ShorthandLookup(name)
	}
	switch {
	case name == "" || f == nil:
		return Option{}, fault.New(fault.Invalid, "%q: create has no such flag", text)
	case hasValue:
		return Option{Flag: f.Name, Value: value}, nil
	case f.NoOptDefVal == "":
		return Option{}, fault.New(fault.Invalid, "%q: the flag needs a value", text)
	}
	return Option{Flag: f.Name, Bare: true}, nil
}

// With adds an option. It takes the place of those that say something about the same thing: the same flag where there can be one, the same
// variable, label, place in the container.
func (l *Line) With(o Option, flags *pflag.FlagSet) {
	same := key(o, flags)
	i := slices.IndexFunc(l.Options, func(x Option) bool { return key(x, flags) == same })
	l.Options = slices.DeleteFunc(l.Options, func(x Option) bool { return key(x, flags) == same })
	if i < 0 {
		i = len(l.Options)
	}
	l.Options = slices.Insert(l.Options, i, o)
}

// Without takes options away: all of a flag where the option has no value, else the one with that value or key. It reports whether there
// was one.
func (l *Line) Without(o Option) bool {
	n := len(l.Options)
	l.Options = slices.DeleteFunc(l.Options, func(x Option) bool {
		if x.Flag != o.Flag {
			return false
		}
		name, _, _ := strings.Cut(x.Value, "=")
		return o.Bare || x.Value == o.Value || name == o.Value || target(x) == o.Value
	})
	return len(l.Options) < n
}

// several are the flags that may be given often and have no key by which one replaces another.
var several = []string{"add-host", "annotation", "attach", "cap-add", "cap-drop", "device", "device-cgroup-rule", "dns", "dns-option", "dns-search", "expose", "group-add", "link", "network", "network-alias", "publish", "security-opt", "volumes-from"}

// key names what an option is about.
func key(o Option, flags *pflag.FlagSet) string {
	switch o.Flag {
	case "volume", "mount", "tmpfs":
		return "at " + target(o)
	case "env", "label", "sysctl", "log-opt", "storage-opt", "ulimit":
		name, _, _ := strings.Cut(o.Value, "=")
		return o.Flag + " " + name
	case "no-healthcheck":
		return "health-cmd"
	}
	if slices.Contains(several, o.Flag) {
		return o.Flag + " " + o.Value
	}
	return o.Flag
}

// target is where a mount option mounts.
func target(o Option) string {
	switch o.Flag {
	case "tmpfs":
		at, _, _ := strings.Cut(o.Value, ":")
		return at
	case "volume":
		parts := strings.Split(o.Value, ":")
		return parts[min(1, len(parts)-1)]
	case "mount":
		for _, field := range strings.Split(o.Value, ",") {
			name, value, _ := strings.Cut(field, "=")
			if name == "target" || name == "dst" || name == "destination" {
				return value
			}
		}
	}
	return ""
}
