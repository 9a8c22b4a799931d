package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// refusal is an option of dockerd that this build has not.
type refusal struct {
	why  string
	flag bool
}

func (r *refusal) String() string                { return "" }
func (r *refusal) Set(string) error              { return errors.New(r.why) }
func (r *refusal) setJSON(json.RawMessage) error { return errors.New(r.why) }
func (r *refusal) given() bool                   { return false }
func (r *refusal) Type() string {
	if r.flag {
		return "bool"
	}
	return "string"
}

// unused is a text that dockerd has a use for and this build has none.
type unused struct {
	text string
	set  bool
}

func (u *unused) String() string     { return u.text }
func (u *unused) Type() string       { return "string" }
func (u *unused) given() bool        { return u.set }
func (u *unused) Set(s string) error { u.text, u.set = s, true; return nil }
func (u *unused) setJSON(raw json.RawMessage) error {
	u.set = true
	return json.Unmarshal(raw, &u.text)
}

// fixed is an option whose only value is what the build does anyway.
type fixed struct {
	accepts, why string
	flag         bool
	set          bool
}

func (f *fixed) String() string { return "" }
func (f *fixed) given() bool    { return f.set }
func (f *fixed) Type() string {
	if f.flag {
		return "bool"
	}
	return "string"
}

func (f *fixed) Set(s string) error {
	if f.flag {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return err
		}
		s = strconv.FormatBool(b)
	}
	if s != f.accepts {
		return errors.New(f.why)
	}
	f.set = true
	return nil
}

func (f *fixed) setJSON(raw json.RawMessage) error {
	if f.flag {
		var b bool
		if err := json.Unmarshal(raw, &b); err != nil {
			return err
		}
		return f.Set(strconv.FormatBool(b))
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	return f.Set(s)
}

type text struct {
	to    *string
	oneOf []string // nil: anything
	set   bool
}

func newText(to *string, init string, oneOf ...string) *text {
	*to = init
	return &text{to: to, oneOf: oneOf}
}

func (t *text) Type() string { return "string" }
func (t *text) given() bool  { return t.set }

func (t *text) String() string {
	if t.to == nil { // pflag asks a zero value what its zero text is
		return ""
	}
	return *t.to
}

func (t *text) Set(s string) error {
	if t.oneOf != nil && !slices.Contains(t.oneOf, s) {
		return fmt.Errorf("must be one of %s", strings.Join(t.oneOf, ", "))
	}
	*t.to, t.set = s, true
	return nil
}

func (t *text) setJSON(raw json.RawMessage) error {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	return t.Set(s)
}

type boolean struct {
	to  *bool
	set bool
}

func (b *boolean) Type() string   { return "bool" }
func (b *boolean) given() bool    { return b.set }
func (b *boolean) String() string { return strconv.FormatBool(b.to != nil && *b.to) }

func (b *boolean) Set(s string) (err error) {
	*b.to, err = strconv.ParseBool(s)
	b.set = true
	return err
}

func (b *boolean) setJSON(raw json.RawMessage) error {
	b.set = true
	return json.Unmarshal(raw, b.to)
}

type number struct {
	to  *int
	set bool
}

func newNumber(to *int, init int) *number {
	*to = init
	return &number{to: to}
}

func (n *number) Type() string { return "int" }
func (n *number) given() bool  { return n.set }

func (n *number) String() string {
	if n.to == nil {
		return "0"
	}
	return strconv.Itoa(*n.to)
}

func (n *number) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", s)
	}
	*n.to, n.set = v, true
	return nil
}

func (n *number) setJSON(raw json.RawMessage) error {
	n.set = true
	return json.Unmarshal(raw, n.to)
}

// size is a number of bytes, "64m" or 67108864.
type size struct {
	to  *int64
	set bool
}

func newSize(to *int64, init int64) *size {
	*to = init
	return &size{to: to}
}

func (z *size) Type() string { return "bytes" }
func (z *size) given() bool  { return z.set }

func (z *size) String() string {
	if z.to == nil {
		return ""
	}
	return units.BytesSize(float64(*z.to))
}

func (z *size) Set(s string) error {
	v, err := units.RAMInBytes(s)
	if err != nil {
		return err
	}
	if v < 0 {
		return errors.New("a size cannot be negative")
	}
	*z.to, z.set = v, true
	return nil
}

func (z *size) setJSON(raw json.RawMessage) error {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return z.Set(s)
	}
	var n int64
	if err := json.Unmarshal(raw, &n); err != nil {
		return err
	}
	return z.Set(strconv.FormatInt(n, 10))
}

// list is an option that may be repeated.
type list struct {
	to    *[]string
	check func(string) error
	set   bool
}

func (l *list) Type() string { return "list" }
func (l *list) given() bool  { return l.set }

func (l *list) String() string {
	if l.to == nil || len(*l.to) == 0 {
		return ""
	}
	return fmt.Sprint(*l.to)
}

func (l *list) Set(s string) error {
	if l.check != nil {
		if err := l.check(s); err != nil {
			return err
		}
	}
	*l.to, l.set = append(*l.to, s), true
	return nil
}

func (l *list) setJSON(raw json.RawMessage) error {
	var all []string
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	for _, s := range all {
		if err := l.Set(s); err != nil {
			return err
		}
	}
	return nil
}

// pairs is a repeated key=value.
type pairs struct {
	to  *map[string]string
	set bool
}

func (p *pairs) Type() string { return "map" }
func (p *pairs) given() bool  { return p.set }

func (p *pairs) String() string {
	if p.to == nil || len(*p.to) == 0 {
		return ""
	}
	return fmt.Sprint(*p.to)
}

func (p *pairs) Set(s string) error {
	k, v, ok := strings.Cut(s, "=")
	if !ok || k == "" {
		return fmt.Errorf("%q is not key=value", s)
	}
	if *p.to == nil {
		*p.to = map[string]string{}
	}
	(*p.to)[k], p.set = v, true
	return nil
}

func (p *pairs) setJSON(raw json.RawMessage) error {
	p.set = true
	return json.Unmarshal(raw, p.to)
}

// ulimits is a repeated name=soft[:hard]; in the file {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}}.
type ulimits struct {
	to  *[]*units.Ulimit
	set bool
}

func (u *ulimits) Type() string { return "ulimit" }
func (u *ulimits) given() bool  { return u.set }

func (u *ulimits) String() string {
	if u.to == nil || len(*u.to) == 0 {
		return ""
	}
	return fmt.Sprint(*u.to)
}

func (u *ulimits) Set(s string) error {
	l, err := units.ParseUlimit(s)
	if err != nil {
		return err
	}
	*u.to = append(slices.DeleteFunc(*u.to, func(o *units.Ulimit) bool { return o.Name == l.Name }), l)
	u.set = true
	return nil
}

func (u *ulimits) setJSON(raw json.RawMessage) error {
	var all map[string]units.Ulimit
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l := all[name]
		if l.Name == "" {
			l.Name = name
		}
		if l.Name != name {
			return fmt.Errorf("%q names the limit %q", name, l.Name)
		}
		if err := u.Set(l.String()); err != nil {
			return err
		}
	}
	return nil
}

// execOpts understands native.cgroupdriver only.
type execOpts struct {
	driver *string
	set    bool
}

func newExecOpts(driver *string) *execOpts {
	*driver = "cgroupfs"
	return &execOpts{driver: driver}
}

func (e *execOpts) Type() string { return "list" }
func (e *execOpts) given() bool  { return e.set }

func (e *execOpts) String() string {
	if !e.set {
		return ""
	}
	return "[native.cgroupdriver=" + *e.driver + "]"
}

func (e *execOpts) Set(s string) error {
	k, v, _ := strings.Cut(s, "=")
	if k != "native.cgroupdriver" {
		return fmt.Errorf("invalid option: %q: only native.cgroupdriver can be set", s)
	}
	if v != "cgroupfs" && v != "systemd" {
		return fmt.Errorf("native.cgroupdriver option %s is internally invalid: it is cgroupfs or systemd", v)
	}
	*e.driver, e.set = v, true
	return nil
}

func (e *execOpts) setJSON(raw json.RawMessage) error {
	var all []string
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	for _, s := range all {
		if err := e.Set(s); err != nil {
			return err
		}
	}
	return nil
}
