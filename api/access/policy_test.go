package access

import (
	"strings"
	"testing"
	"time"

	"berth/base/fault"
)

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		p    Policy
		want string // part of the error; "" none
	}{
		{Policy{Name: "a", ReadOnly: true}, ""},
		{Policy{Name: "a", Verbs: []Verb{Read, Start}, Label: "team", Allow: []Lift{LiftBind}}, ""},
		{Policy{Name: "a", Verbs: []Verb{Read}, Binds: []string{"/srv/www"}, Mode: "0666"}, ""},
		{Policy{Name: "", ReadOnly: true}, "name"},
		{Policy{Name: "../x", ReadOnly: true}, "name"},
		{Policy{Name: ".x", ReadOnly: true}, "name"},
		{Policy{Name: "a b", ReadOnly: true}, "name"},
		{Policy{Name: strings.Repeat("a", 65), ReadOnly: true}, "name"},
		{Policy{Name: "a"}, "--read-only or --verbs"},
		{Policy{Name: "a", ReadOnly: true, Verbs: []Verb{Read}}, "two ways"},
		{Policy{Name: "a", Verbs: []Verb{"reed"}}, `no verb "reed"`},
		{Policy{Name: "a", ReadOnly: true, Allow: []Lift{"all"}}, `"all" cannot be allowed`},
		{Policy{Name: "a", ReadOnly: true, Label: "=x"}, "no name"},
		{Policy{Name: "a", ReadOnly: true, Label: "image=box"}, "cannot be told from"},
		{Policy{Name: "a", ReadOnly: true, Label: "k=v", Project: "p"}, "--project is a label"},
		{Policy{Name: "a", ReadOnly: true, NoBind: true, Binds: []string{"/x"}}, "contradicts"},
		{Policy{Name: "a", ReadOnly: true, Binds: []string{"x"}}, "absolute"},
		{Policy{Name: "a", ReadOnly: true, Binds: []string{"/x/../y"}}, "absolute"},
		{Policy{Name: "a", ReadOnly: true, Mode: "999"}, "octal"},
		{Policy{Name: "a", ReadOnly: true, Project: "p", Allow: []Lift{LiftSocket}}, "in no scope"},
	} {
		err := c.p.Check()
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !fault.Is(err, fault.Invalid)) {
			t.Errorf("%+v: %v, want %q", c.p, err, c.want)
		}
	}
}

func TestAdmit(t *testing.T) {
	readOnly := &Policy{Name: "tr", ReadOnly: true}
	team := &Policy{Name: "ci", Verbs: []Verb{Read, Create, Image}, Label: "team=a"}
	for _, c := range []struct {
		p    *Policy
		r    Rule
		want string
	}{
		{readOnly, Rule{Ping, Anything}, ""},
		{readOnly, Rule{Read, Closed}, ""},
		{readOnly, Rule{Logs, Container}, ""},
		{readOnly, Rule{Create, Anything}, `access "tr": POST /x needs the verb "create", and this socket allows read, logs`},
		{readOnly, Rule{}, `access "tr": POST /x has no verb that could be allowed`},
		{team, Rule{Image, Anything}, ""},
		{team, Rule{Image, Closed}, `access "ci": POST /x concerns everybody on this engine, and this socket's scope is label team=a`},
		{team, Rule{Read, ""}, "no verb"},
		{&Policy{Name: "x"}, Rule{Read, Anything}, "this socket allows nothing"},
	} {
		err := c.p.Admit("POST", "/x", c.r)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !fault.Is(err, fault.Forbidden)) {
			t.Errorf("%v %v: %v, want %q", c.p, c.r, err, c.want)
		}
	}
}

func TestScope(t *testing.T) {
	exact, any, project, all := &Policy{Name: "e", Label: "k=v"}, &Policy{Name: "n", Label: "k"}, &Policy{Name: "p", Project: "shop"}, &Policy{Name: "a"}
	for _, c := range []struct {
		p      *Policy
		labels map[string]string
		sees   bool
		mark   string // of the label; "-" refused
	}{
		{exact, nil, false, "v"},
		{exact, map[string]string{"k": "v"}, true, "v"},
		{exact, map[string]string{"k": "w"}, false, "-"},
		{exact, map[string]string{"K": "v"}, false, "v"},
		{any, map[string]string{"k": ""}, true, ""},
		{any, nil, false, "n"},
		{project, map[string]string{ProjectLabel: "shop"}, true, ""},
		{project, map[string]string{ProjectLabel: "shop2"}, false, "-"},
		{all, nil, true, ""},
	} {
		if got := c.p.Sees(c.labels); got != c.sees {
			t.Errorf("%v sees %v: %t", c.p, c.labels, got)
		}
		marked, err := c.p.Mark(c.labels)
		if (err != nil) != (c.mark == "-") {
			t.Errorf("%v marks %v: %v", c.p, c.labels, err)
		}
		if err == nil && marked["k"] != c.mark {
			t.Errorf("%v marks %v: %v", c.p, c.labels, marked)
		}
		if err == nil && !c.p.Sees(marked) {
			t.Errorf("%v does not see what it marked: %v", c.p, marked)
		}
	}
}

func TestString(t *testing.T) {
	p := &Policy{Name: "ci", Verbs: []Verb{Read, Start}, Project: "shop", Allow: []Lift{LiftDevice}, Binds: []string{"/srv"}, HideEnv: true, Expires: time.Unix(0, 0)}
	const want = "ci: read, start on project shop; allows device; mounts of /srv; environment hidden; until 1970-01-01T00:00:00Z"
	if got := p.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
