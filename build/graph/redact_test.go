package graph

import (
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
)

// Names are shown and kept where the client's credentials must not be. What a command says is the Dockerfile's own.
func TestNamesHoldNoCredentials(t *testing.T) {
	group := llb.ProgressGroup("g", "ADD https://me:word@host/x", false)
	named := llb.Scratch().File(llb.Copy(llb.HTTP("https://me:word@host/x", llb.WithCustomName("[1/2] ADD https://word@host/x")), "/", "/"), group)
	for name, st := range map[string]llb.State{
		"(https://xxxxx@host/x)":                                  llb.Merge([]llb.State{llb.HTTP("https://me:word@host/x"), llb.Local("a")}),
		"[1/2] ADD https://xxxxx@host/x":                          named,
		"[internal] load git source http://xxxxx@host/x.git#main": llb.Local("x", llb.WithCustomName("[internal] load git source http://me:word@host/x.git#main")),
		"mkdir /a@b": llb.Scratch().File(llb.Mkdir("a@b", 0o755)),
	} {
		g, err := Parse(marshal(t, st))
		if err != nil {
			t.Fatal(err)
		}
		all := ""
		for _, v := range g.Vertices {
			all += v.Name + "\n" + v.ProgressGroup.GetName() + "\n"
		}
		if strings.Contains(all, "word") || !strings.Contains(all, strings.Trim(name, "()")) {
			t.Errorf("%s: %s", name, all)
		}
	}
	g, err := Parse(marshal(t, llb.Image("x").Run(llb.Args([]string{"get", "https://me:word@host"})).Root()))
	if err != nil || !strings.Contains(g.Vertices[len(g.Vertices)-1].Name, "word") {
		t.Errorf("%v", err)
	}
}

func TestRedact(t *testing.T) {
	pin := "@sha256:" + strings.Repeat("0a", 32)
	for in, want := range map[string]string{
		"https://u:p@x/a?b#c":   "https://xxxxx:xxxxx@x/a?b#c",
		"https://token@x/a":     "https://xxxxx@x/a",
		"https://:p@x/a":        "https://xxxxx:xxxxx@x/a",
		"https://x/a b%zz":      "https://x/a b%zz",
		"https://u:p%zz@x/a":    "https://xxxxx@x/a",
		"https://u:p/w@x/a":     "https://xxxxx@x/a",
		"git@x:a/b":             "git@x:a/b",
		"ssh://git@x:22/a":      "ssh://xxxxx@x:22/a",
		"a text with an @ sign": "a text with an @ sign",
		"":                      "",

		"oci-layout://bases" + pin:        "oci-layout://bases" + pin,
		"docker-image://busybox" + pin:    "docker-image://busybox" + pin,
		"docker-image://x:5000/a:1" + pin: "docker-image://x:5000/a:1" + pin,
		"https://word" + pin:              "https://xxxxx" + pin,
		"docker-image://u:p%zz@host/x":    "docker-image://xxxxx@host/x",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
