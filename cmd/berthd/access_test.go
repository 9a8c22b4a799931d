package main

import (
	"strings"
	"testing"

	"berth/api/access"
	"berth/engine/runtimes"
)

func TestAccessAndRuntimesOfTheFile(t *testing.T) {
	for _, c := range []struct {
		file  string
		args  []string
		check func(config) bool
		err   string
	}{
		{file: `{"access":[{"name":"tr","readOnly":true},{"name":"ci","project":"shop","verbs":["read","start"],"binds":["/srv"]}],"audit":true,"audit-max-size":"1m"}`, check: func(c config) bool {
			return len(c.Access.Sockets) == 2 && c.Access.Sockets[1].Verbs[1] == access.Start && c.Access.Audit && c.Access.AuditSize == 1<<20 && c.Access.AuditFiles == defaultAuditFiles
		}},
		{file: `{"access":[{"name":"tr"}]}`, err: "say what may be done"},
		{file: `{"access":[{"name":"tr","readonly":true,"verb":["read"]}]}`, err: `unknown field "verb"`},
		{file: `{"access":[{"name":"a","readOnly":true},{"name":"a","readOnly":true}]}`, err: "there twice"},
		{file: `{"access":{"a":1}}`, err: "cannot unmarshal"},
		{file: `{"runtimes":{"crun":{"path":"/usr/bin/crun","runtimeArgs":["--debug"]},"r2":{"runtimeType":"io.containerd.runc.v2"},"g":{"runtimeType":"io.containerd.runc.v2","options":{"BinaryName":"/bin/runsc"}}},"default-runtime":"crun"}`,
			args: []string{"--add-runtime", "x=/bin/x"}, check: func(c config) bool {
				s, err := c.Runtimes.set()
				if err != nil || s.Default() != "crun" {
					return false
				}
				want := []runtimes.Runtime{{Name: "crun", Path: "/usr/bin/crun", Args: []string{"--debug"}}, {Name: "g", Path: "/bin/runsc"}, {Name: "r2", Path: "runc"}, {Name: "x", Path: "/bin/x"}}
				for i, r := range s.All() {
					if r.Name != want[i].Name || r.Path != want[i].Path || strings.Join(r.Args, " ") != strings.Join(want[i].Args, " ") {
						return false
					}
				}
				return len(s.All()) == len(want)
			}},
		{file: `{"runtimes":{"kata":{"runtimeType":"io.containerd.kata.v2"}}}`, err: "needs containerd"},
		{file: `{"runtimes":{"a":{"path":"/x","options":{"y":1}}}}`, err: "options are of a runtimeType"},
		{file: `{"runtimes":{"a":{"runtimeType":"io.containerd.runc.v2","options":{"Root":"/x"}}}}`, err: "option Root"},
		{file: `{"runtimes":{"berth":{"path":"/x"}}}`, err: "reserved"},
		{args: []string{"--default-runtime", "nope"}, err: "specified default runtime 'nope' does not exist"},
		{args: []string{"--add-runtime", "nope"}, err: "write NAME=PATH"},
	} {
		cfg, err := load(t, c.file, c.args...)
		switch {
		case c.err == "" && err != nil, c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s %q: %v, want %q", c.file, c.args, err, c.err)
		case c.check != nil && !c.check(cfg):
			t.Errorf("%s %q: %+v %+v", c.file, c.args, cfg.Access, cfg.Runtimes)
		}
	}
}
