package image

import (
	"slices"
	"strings"
	"testing"

	"berth/base/fault"
)

func TestApplyChanges(t *testing.T) {
	base := RunConfig{Env: []string{"PATH=/bin", "V=1"}, Cmd: []string{"old"}, WorkingDir: "/srv", Labels: map[string]string{"a": "b"}}
	for _, c := range []struct {
		changes []string
		want    string // of what differs, as JSON
	}{
		{[]string{`CMD ["a","b c"]`}, `"Cmd":["a","b c"]`},
		{[]string{`cmd echo "$V" hi`}, `"Cmd":["/bin/sh","-c","echo \"$V\" hi"]`},
		{[]string{`CMD [not json]`}, `"Cmd":["/bin/sh","-c","[not json]"]`},
		{[]string{`CMD []`}, ``},
		{[]string{`ENTRYPOINT ["e"]`}, `"Entrypoint":["e"]`},
		{[]string{`CMD ["x"]`, `ENTRYPOINT ["e"]`}, `"Entrypoint":["e"],"Cmd":["x"]`},
		{[]string{`ENV A=1 B="two words" C=three\ words`}, `"Env":["PATH=/bin","V=1","A=1","B=two words","C=three words"]`},
		{[]string{`ENV A one  two`}, `"Env":["PATH=/bin","V=1","A=one  two"]`},
		{[]string{`ENV V=2 W=$V X='$V' Y=\$V Z="${V}x"`}, `"Env":["PATH=/bin","V=2","W=1","X=$V","Y=$V","Z=1x"]`},
		{[]string{`ENV A=${N:-none} B=${V:+set} C=${V:-x} D=${N:+x} E=${N-a${V}b}`}, `"Env":["PATH=/bin","V=1","A=none","B=set","C=1","D=","E=a1b"]`},
		{[]string{"ENV A=1 \\\n   B=2\n# comment\nENV C=3"}, `"Env":["PATH=/bin","V=1","A=1","B=2","C=3"]`},
		{[]string{`EXPOSE 80 53/UDP 8000-8002/tcp`}, `"ExposedPorts":{"53/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{},"8002/tcp":{}}`},
		{[]string{`LABEL x=y "k w"="v w"`}, `"Labels":{"a":"b","k w":"v w","x":"y"}`},
		{[]string{`ONBUILD RUN make`}, `"OnBuild":["RUN make"]`},
		{[]string{`USER ${U:-nobody}:7`}, `"User":"nobody:7"`},
		{[]string{`VOLUME /a /b`, `VOLUME ["/c d"]`}, `"Volumes":{"/a":{},"/b":{},"/c d":{}}`},
		{[]string{`WORKDIR rel/../x`}, `"WorkingDir":"/srv/x"`},
		{[]string{`WORKDIR /abs/`}, `"WorkingDir":"/abs"`},
		{[]string{`STOPSIGNAL SIGQUIT`}, `"StopSignal":"SIGQUIT"`},
		{[]string{`HEALTHCHECK NONE`}, `"Healthcheck":{"Test":["NONE"]}`},
		{[]string{`HEALTHCHECK --interval=5s --retries=3 CMD curl -f x`}, `"Healthcheck":{"Test":["CMD-SHELL","curl -f x"],"Interval":5000000000,"Retries":3}`},
		{[]string{`HEALTHCHECK CMD ["a"]`}, `"Healthcheck":{"Test":["CMD","a"]}`},
	} {
		got, err := ApplyChanges(base, c.changes)
		if err != nil {
			t.Errorf("%q: %v", c.changes, err)
			continue
		}
		if s := toJSON(t, got); !strings.Contains(s, c.want) {
			t.Errorf("%q:\n got %s\nwant …%s…", c.changes, s, c.want)
		}
	}
	if !slices.Equal(base.Env, []string{"PATH=/bin", "V=1"}) || len(base.Labels) != 1 {
		t.Error("the base was changed")
	}
	if got, _ := ApplyChanges(base, []string{`ENTRYPOINT ["e"]`}); got.Cmd != nil {
		t.Error("ENTRYPOINT must drop an inherited CMD")
	}
}

func TestApplyChangesRefuses(t *testing.T) {
	for change, want := range map[string]string{
		"RUN make":                        "run is not a valid change command",
		"ADD a b":                         "add is not a valid change command",
		"ENV":                             "ENV requires at least one argument",
		"ENV A":                           "ENV must have two arguments",
		"ENV A=1 B":                       "can't find =",
		"ENV =x":                          "ENV must have two arguments",
		`ENV A="x`:                        "double-quote",
		"ENV A=${V":                       "bad substitution",
		"ENV A=${V!x}":                    "unsupported modifier",
		"ENV A=${N:?unset}":               "N: unset",
		"EXPOSE 80:80":                    "invalid containerPort",
		"EXPOSE 90-80":                    "invalid containerPort",
		"EXPOSE 80/quic":                  "invalid proto",
		"EXPOSE 70000":                    "invalid containerPort",
		"ONBUILD ONBUILD x":               "Chaining ONBUILD",
		"ONBUILD FROM x":                  "FROM isn't allowed as an ONBUILD trigger",
		"HEALTHCHECK TEST x":              "unknown type",
		"HEALTHCHECK CMD":                 "missing command",
		"HEALTHCHECK --interval=x CMD a":  "no duration",
		"HEALTHCHECK --retries=-1 CMD a":  "--retries must be at least 0",
		"HEALTHCHECK --colour=red CMD a":  "unknown flag: --colour",
		"HEALTHCHECK NONE x":              "takes no arguments",
		`VOLUME [""]`:                     "can not be an empty string",
		strings.Repeat("ENV A=${B:-", 50): "",
	} {
		if _, err := ApplyChanges(RunConfig{}, []string{change}); err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v, want …%s…", change, err, want)
		}
	}
}

func FuzzApplyChanges(f *testing.F) {
	for _, s := range []string{`CMD ["a"]`, `ENV A="${B:-$C}" D='x'`, "EXPOSE 1-3/udp", "HEALTHCHECK --interval=1s CMD x", "LABEL a=b \\\n c=d", `VOLUME ["/x"]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := ApplyChanges(RunConfig{Env: []string{"B=1"}}, []string{s}); err != nil && fault.KindOf(err) != fault.Invalid {
			t.Fatal(err)
		}
	})
}

func FuzzParseDocument(f *testing.F) {
	f.Add([]byte(`{"created":"2024-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"Cmd":["a"],"Healthcheck":{"Interval":1}},"rootfs":{"type":"layers","diff_ids":["sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]},"history":[{}]}`))
	f.Add([]byte(`{"rootfs":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDocument(b)
		if err != nil {
			if fault.KindOf(err) != fault.Invalid {
				t.Fatal(err)
			}
			return
		}
		for _, id := range d.RootFS.DiffIDs {
			if id.Validate() != nil {
				t.Fatalf("accepted diff id %q", id)
			}
		}
		d.Config.clone()
		_ = d.platform().String()
	})
}
