package oci

import (
	"strconv"
	"strings"

	"berth/base/fault"
)

// flagKind says what a flag takes.
type flagKind uint8

const (
	textFlag flagKind = iota // one value; the last one given counts
	boolFlag                 // none, or =true and =false
	listFlag                 // one value each time it is given
	intFlag                  // one number
)

// flagDef describes one flag of a command.
type flagDef struct {
	name   string // long name, without dashes
	short  string // one letter, or ""
	kind   flagKind
	hidden bool   // accepted, not shown in help
	value  string // default
	usage  string
}

// flagSet is what was given on a command line.
type flagSet struct {
	defs   []flagDef
	values [][]string // by index of defs; nil: not given
	args   []string   // what is no flag
	help   bool       // -h or --help was given
}

// parseFlags reads a command line the way runc does: one or two dashes, "=value" or the next word,
// flags and words in any order. A word "--" ends the flags. With firstWordEnds, so does the first
// word that is no flag: everything behind it belongs to someone else's command line.
func parseFlags(defs []flagDef, argv []string, firstWordEnds bool) (*flagSet, error) {
	f := &flagSet{defs: defs, values: make([][]string, len(defs))}
	for i := 0; i < len(argv); i++ {
		arg := argv[i]
		if arg == "--" {
			f.args = append(f.args, argv[i+1:]...)
			return f, nil
		}
		if len(arg) < 2 || arg[0] != '-' {
			if firstWordEnds {
				f.args = append(f.args, argv[i:]...)
				return f, nil
			}
			f.args = append(f.args, arg)
			continue
		}
		name, value, given := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		at := f.find(name)
		if at < 0 && (name == "help" || name == "h") {
			f.help = true
			continue
		}
		if at < 0 {
			return f, fault.New(fault.Invalid, "flag provided but not defined: -%s", name)
		}
		switch d := &defs[at]; {
		case d.kind == boolFlag && !given:
			value = "true"
		case !given && i+1 < len(argv):
			i++
			value = argv[i]
		case !given:
			return f, fault.New(fault.Invalid, "flag needs an argument: -%s", name)
		}
		if err := defs[at].check(name, value); err != nil {
			return f, err
		}
		f.values[at] = append(f.values[at], value)
	}
	return f, nil
}

// check refuses values that do not read as what the flag takes.
func (d *flagDef) check(name, value string) error {
	switch d.kind {
	case boolFlag:
		if _, err := strconv.ParseBool(value); err != nil {
			return fault.New(fault.Invalid, "invalid boolean value %q for -%s: parse error", value, name)
		}
	case intFlag:
		if _, err := strconv.ParseInt(value, 0, 64); err != nil {
			return fault.New(fault.Invalid, "invalid value %q for flag -%s: parse error", value, name)
		}
	}
	return nil
}

// find gives the index of the flag with that long or short name, or -1.
func (f *flagSet) find(name string) int {
	for i := range f.defs {
		if d := &f.defs[i]; d.name == name || d.short != "" && d.short == name {
			return i
		}
	}
	return -1
}

// given reports whether the flag stood on the command line.
func (f *flagSet) given(name string) bool {
	i := f.find(name)
	return i >= 0 && f.values[i] != nil
}

// text gives a flag's last value, or its default. A flag that the command has not is "".
func (f *flagSet) text(name string) string {
	i := f.find(name)
	if i < 0 {
		return ""
	}
	if v := f.values[i]; len(v) > 0 {
		return v[len(v)-1]
	}
	return f.defs[i].value
}

// bool gives a boolean flag's value, false when it was not given.
func (f *flagSet) bool(name string) bool {
	b, _ := strconv.ParseBool(f.text(name)) // checked by parseFlags
	return b
}

// int gives a numeric flag's value, 0 when it was not given and has no default.
func (f *flagSet) int(name string) int64 {
	n, _ := strconv.ParseInt(f.text(name), 0, 64) // checked by parseFlags
	return n
}

// list gives every value of a flag in the order in which they were given.
func (f *flagSet) list(name string) []string {
	i := f.find(name)
	if i < 0 {
		return nil
	}
	return f.values[i]
}

// arg gives the n-th word that is no flag, or "".
func (f *flagSet) arg(n int) string {
	if n >= len(f.args) {
		return ""
	}
	return f.args[n]
}
