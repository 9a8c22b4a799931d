package config

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Every field that the specification's types have for Linux is read: a spec in which each is set to
// something of its own comes back as it was.
func TestEveryFieldIsRead(t *testing.T) {
	var want specs.Spec
	n := 0
	fill(reflect.ValueOf(&want).Elem(), &n)
	want.Solaris, want.Windows, want.VM, want.ZOS, want.FreeBSD = nil, nil, nil, nil, nil
	text, err := json.MarshalIndent(&want, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if got.Spec.Linux.Seccomp, err = got.Seccomp(); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Spec, &want) {
		again, _ := json.MarshalIndent(got.Spec, "", "\t")
		t.Errorf("read back:\n%s\nwant:\n%s", again, text)
	}
	p, err := json.Marshal(want.Process)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseProcess(p); err != nil || !reflect.DeepEqual(got, want.Process) {
		t.Errorf("process: %+v, %v", got, err)
	}
	r, err := json.Marshal(want.Linux.Resources)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseResources(r); err != nil || !reflect.DeepEqual(got, want.Linux.Resources) {
		t.Errorf("resources: %+v, %v", got, err)
	}
}

// fill sets every field below v to a value that no other has.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		fill(e, n)
		k := reflect.New(v.Type().Key()).Elem()
		fill(k, n)
		v.SetMapIndex(k, e)
	case reflect.String:
		v.SetString(strings.Repeat("x", *n%7) + string(rune('a'+*n%26)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Interface:
	default:
		panic(v.Kind())
	}
}

func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		`{"process":{"user":{"uid":-1}}}`:              "process.user.uid: -1 is not between 0 and 4294967295",
		`{"process":{"args":"sh"}}`:                    "process.args: expected an array, found '\"'",
		`{"mounts":[{},{"destination":7}]}`:            "mounts[1].destination: expected a string, found '7'",
		`{"linux":{"seccomp":{"syscalls":[}}}`:         "linux.seccomp.syscalls[0]: expected a value, found '}'",
		`{"linux":{"resources":{"pids":{"limit":"1"}}`: "linux.resources.pids.limit: expected a number, found '\"'",
		`null x`: "text after the end",
	} {
		_, err := Parse([]byte(text))
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v, want …%s", text, err, want)
		}
	}
}

// Where both can read a text, encoding/json reads the same.
func FuzzAgainstStandardLibrary(f *testing.F) {
	var full specs.Spec
	n := 0
	fill(reflect.ValueOf(&full).Elem(), &n)
	text, err := json.Marshal(&full)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"process":{"user":{"additionalGids":null},"oomScoreAdj":-5},"mounts":[],"hooks":{"poststop":[{}]},"annotations":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Parse(data)
		if err != nil {
			return
		}
		var want specs.Spec
		if json.Unmarshal(data, &want) != nil {
			return // it also decodes sections that we ignore
		}
		if hasDoubts(data) {
			return
		}
		if got.Spec.Linux != nil {
			if got.Spec.Linux.Seccomp, err = got.Seccomp(); err != nil {
				t.Fatalf("%q: seccomp: %v", data, err)
			}
		}
		want.Solaris, want.Windows, want.VM, want.ZOS, want.FreeBSD = nil, nil, nil, nil, nil
		if !reflect.DeepEqual(got.Spec, &want) {
			a, _ := json.Marshal(got.Spec)
			b, _ := json.Marshal(&want)
			t.Fatalf("%q:\n%s\nencoding/json reads\n%s", data, a, b)
		}
	})
}

// hasDoubts tells texts that the two rightly read differently: encoding/json folds the case of keys
// and merges a member that is there twice into the first one.
func hasDoubts(data []byte) bool {
	doubt := false
	d := json.NewDecoder(strings.NewReader(string(data)))
	type level struct {
		object bool
		key    bool
		seen   map[string]bool
	}
	var stack []level
	for {
		tok, err := d.Token()
		if err != nil {
			return doubt
		}
		var top *level
		if len(stack) > 0 {
			top = &stack[len(stack)-1]
		}
		isKey := top != nil && top.object && top.key
		if isKey {
			if s, ok := tok.(string); ok {
				folded := strings.ToLower(strings.NewReplacer("ſ", "s", "K", "k").Replace(s))
				doubt = doubt || top.seen[folded] || s != folded && !known(s)
				top.seen[folded] = true
				top.key = false
				continue
			}
		}
		if top != nil && top.object {
			top.key = true
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, level{object: true, key: true, seen: map[string]bool{}})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
	}
}

// known reports whether a key with capitals is one of the specification's own.
func known(key string) bool {
	var find func(t reflect.Type, seen map[reflect.Type]bool) bool
	find = func(t reflect.Type, seen map[reflect.Type]bool) bool {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			return find(t.Elem(), seen)
		case reflect.Struct:
			if seen[t] {
				return false
			}
			seen[t] = true
			for i := range t.NumField() {
				name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
				if name == key || find(t.Field(i).Type, seen) {
					return true
				}
			}
		}
		return false
	}
	return find(reflect.TypeFor[specs.Spec](), map[reflect.Type]bool{})
}
