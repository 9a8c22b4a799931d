package container

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"berth/base/fault"
	"berth/network"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMoves(t *testing.T) {
	all := []Status{Created, Running, Paused, Restarting, Removing, Exited, Dead}
	var b strings.Builder
	for _, from := range all {
		fmt.Fprintf(&b, "%s:", from)
		for _, to := range all {
			if from != to && from.CanBecome(to) {
				fmt.Fprintf(&b, " %s", to)
			}
		}
		b.WriteByte('\n')
	}
	want := `created: running removing exited dead
running: paused restarting exited
paused: running restarting exited
restarting: running removing exited dead
removing: dead
exited: running restarting removing dead
dead: removing
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}

func TestLife(t *testing.T) {
	now := time.Unix(100, 0)
	s := State{Status: Created}
	step := func(n State, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		s = n
	}
	step(s.Started(42, now))
	if !s.Running || s.Pid != 42 || s.ExitCode != 0 {
		t.Fatalf("started: %+v", s)
	}
	step(s.Become(Paused))
	if !s.Running || !s.Paused || s.Pid != 42 {
		t.Fatalf("paused: %+v", s)
	}
	step(s.Ended(End{Code: 137, Signal: 9, OOM: true, At: now.Add(time.Second)}, true))
	if !s.Running || !s.Restarting || s.Paused || s.Pid != 0 || !s.OOMKilled || s.ExitCode != 137 {
		t.Fatalf("restarting: %+v", s)
	}
	step(s.Started(43, now.Add(2*time.Second)))
	if s.OOMKilled || s.Restarting || s.ExitCode != 0 {
		t.Fatalf("restarted: %+v", s)
	}
	if _, err := s.Become(Removing); err == nil {
		t.Fatal("a running container was removed")
	}
}

func TestWithImage(t *testing.T) {
	image := ImageDefaults{
		User: "app", Env: []string{"A=image", "B=image"}, Entrypoint: []string{"/entry"}, Cmd: []string{"default"}, WorkingDir: "/srv",
		Labels: map[string]string{"a": "image", "b": "image"}, StopSignal: "SIGINT", ExposedPorts: []string{"80/tcp"},
	}
	for _, c := range []struct {
		name    string
		process Process
		image   ImageDefaults
		want    string
	}{
		{"all from the image", Process{}, image, "/entry default"},
		{"command replaces command", Process{Cmd: []string{"x", "y"}}, image, "/entry x y"},
		{"entrypoint drops the image's command", Process{Entrypoint: []string{"sh"}}, image, "sh"},
		{"both", Process{Entrypoint: []string{"sh"}, Cmd: []string{"-c", "x"}}, image, "sh -c x"},
		{"empty entrypoint word asks for none", Process{Entrypoint: []string{""}, Cmd: []string{"x"}}, image, "x"},
		{"empty entrypoint list asks for none", Process{Entrypoint: []string{}, Cmd: []string{"x"}}, image, "x"},
		{"nothing at all", Process{}, ImageDefaults{}, "no command specified"},
		{"empty entrypoint word and no command", Process{Entrypoint: []string{""}}, image, "no command specified"},
	} {
		s, err := Spec{Process: c.process}.WithImage(c.image)
		path, args := s.Process.CommandLine()
		got := strings.Join(append([]string{path}, args...), " ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}

	s, _ := Spec{Process: Process{User: "me", Env: []string{"B=mine", "C"}}, Labels: map[string]string{"b": "mine"}, ExposedPorts: []string{"80/tcp", "53/udp"}}.WithImage(image)
	want := Spec{
		Process: Process{User: "me", Env: []string{"B=mine", "C", "A=image"}, WorkingDir: "/srv", Entrypoint: []string{"/entry"}, Cmd: []string{"default"}},
		Labels:  map[string]string{"a": "image", "b": "mine"}, ExposedPorts: []string{"53/udp", "80/tcp"}, StopSignal: "SIGINT",
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
}

func TestEnvironment(t *testing.T) {
	s := Spec{Hostname: "h", Process: Process{TTY: true, Env: []string{"TERM=dumb", "HOSTNAME", "X=1=2", "X=3"}}}
	if got := fmt.Sprint(s.Environment(nil)); got != "[PATH="+DefaultPath+" TERM=dumb X=3]" {
		t.Error(got)
	}
	if v, ok := LookupEnv([]string{"A=1", "B=2=3"}, "B"); !ok || v != "2=3" {
		t.Error(v, ok)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{"web": "web", "/web": "web", "a": "", "": "", "-x": "", "a b": "", "a/b": "", "W_e.b-1": "W_e.b-1"} {
		got, err := CleanName(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	for attempt := range 20 {
		if n, err := CleanName(RandomName(attempt)); err != nil {
			t.Error(n, err)
		}
	}
}

func TestCommandLineQuotes(t *testing.T) {
	r := Record{Path: "sh", Args: []string{"-c", "echo a b"}}
	if got := r.CommandLine(); got != "sh -c 'echo a b'" {
		t.Error(got)
	}
}

func TestFilters(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	spec := &Spec{Labels: map[string]string{"a": "1", "b": ""}, ExposedPorts: []string{"80/tcp"}, Network: Network{Mode: "none"},
		Mounts: []Mount{{Source: "/src", Target: "/dst"}}}
	sandbox := network.Sandbox{
		Ports:     []network.Port{{Port: 80, Proto: "tcp", HostPort: 8080}, {Port: 53, Proto: "udp", HostPort: 5353}},
		Endpoints: []network.Endpoint{{NetworkName: "front", NetworkID: "abc123"}},
	}
	mounts := []MountPoint{{Type: "bind", Source: "/src", Destination: "/dst"}, {Type: "volume", Name: "data", Source: "/var/lib/x", Destination: "/d"}}
	me := &Info{ID: "abcdef", Name: "web1", Spec: spec, ImageID: "sha256:1", Created: now.Add(-time.Hour), State: State{Status: Exited, ExitCode: 3, StartedAt: now}, Sandbox: sandbox, Mounts: mounts}
	other := &Info{ID: "ffff", Name: "other", Spec: spec, Created: now.Add(-time.Minute)}
	l := Lookup{Now: now,
		Container: func(ref string) (*Info, error) {
			if ref == "other" {
				return other, nil
			}
			return nil, fault.New(fault.NotFound, "No such container: %s", ref)
		},
		Images: func(ref string) ([]string, error) {
			if ref == "busybox" {
				return []string{"sha256:0", "sha256:1"}, nil
			}
			return nil, errors.New("no")
		}}
	for _, c := range []struct {
		filter string
		want   string
	}{
		{"id=abc", "yes"}, {"id=bcd$", "no"}, {"id=^abcdef$", "yes"},
		{"name=web", "yes"}, {"name=/web1", "yes"}, {"name=^eb", "no"}, {"name=nope name=web1", "yes"}, {"name=(", "no"},
		{"label=a", "yes"}, {"label=a=1", "yes"}, {"label=a=2", "no"}, {"label=a label=c", "no"}, {"label=b=", "yes"},
		{"status=exited", "yes"}, {"status=running", "no"}, {"status=running status=exited", "yes"}, {"status=gone", "invalid filter 'status=gone'"},
		{"exited=3", "yes"}, {"exited=0", "no"}, {"exited=x", "invalid filter 'exited=x'"},
		{"before=other", "yes"}, {"since=other", "no"}, {"since=ghost", "No such container: ghost"},
		{"ancestor=busybox", "yes"}, {"ancestor=nothing", "no"},
		{"volume=/dst", "yes"}, {"volume=/src", "yes"}, {"volume=/", "no"},
		{"volume=data", "yes"}, {"volume=/d", "yes"}, {"volume=/var/lib/x", "no"},
		{"network=none", "yes"}, {"network=host", "no"}, {"network=front", "yes"}, {"network=abc", "yes"}, {"network=bc1", "no"}, {"network=host network=front", "yes"},
		{"expose=80", "yes"}, {"expose=80/udp", "no"}, {"expose=70-90/tcp", "yes"}, {"expose=90-70", `invalid filter: "90-70" is no port, PORT[-PORT][/PROTOCOL]`},
		{"publish=80", "no"}, {"publish=8080", "yes"}, {"publish=8000-9000/tcp", "yes"}, {"publish=8080/udp", "no"}, {"publish=5353/udp", "yes"}, {"publish=x", `invalid filter: "x" is no port, PORT[-PORT][/PROTOCOL]`}, {"health=none", "yes"}, {"health=healthy", "no"}, {"health=ill", "invalid filter 'health=ill'"},
		{"is-task=true", "no"}, {"is-task=false", "yes"}, {"colour=red", "invalid filter 'colour'"},
	} {
		m, err := parse(c.filter).ForList(l)
		if got := answer(m, err, me); got != c.want {
			t.Errorf("%s: %s, want %s", c.filter, got, c.want)
		}
	}
	for filter, want := range map[string]string{
		"until=10m": "yes", "until=2h": "no", "until=2030-01-02": "no", "until=2030-01-02T03:00:00": "yes", "until=" + fmt.Sprint(now.Unix()): "yes",
		"until=1.5": "no", "until=noon": "invalid filter 'until=noon'", "label!=a": "no", "label!=z": "yes", "label=z": "no", "status=exited": "invalid filter 'status'",
	} {
		m, err := parse(filter).ForPrune(l)
		if got := answer(m, err, me); got != want {
			t.Errorf("prune %s: %s, want %s", filter, got, want)
		}
	}
}

// parse reads "a=b a=c d=e"; "label!=x" is the name "label!".
func parse(s string) Filters {
	f := Filters{}
	for _, word := range strings.Fields(s) {
		name, value, _ := strings.Cut(word, "=")
		f[name] = append(f[name], value)
	}
	return f
}

func answer(m Matcher, err error, i *Info) string {
	switch {
	case err != nil:
		return err.Error()
	case m(i):
		return "yes"
	}
	return "no"
}

func TestRecordGolden(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	grace := 3
	r := &Record{Version: Version, ID: id, Name: "web", Created: time.Unix(1e9, 5).UTC(), ImageID: "sha256:aa", Platform: "linux", Path: "sh", Args: []string{"-c", "x"},
		LogPath: "/l", Cgroup: "/berth/" + id,
		Spec: &Spec{Image: "busybox", Process: Process{Cmd: []string{"sh", "-c", "x"}, TTY: true}, StopTimeout: &grace,
			Mounts: []Mount{{Type: "tmpfs", Target: "/t", TmpfsSize: 1}}, Security: Security{MaskedPaths: []string{}}}}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		os.WriteFile("testdata/record.json", b, 0o644)
	}
	want, _ := os.ReadFile("testdata/record.json")
	if string(b) != string(want) {
		t.Errorf("the format changed: raise Version and keep reading the old one\n%s", b)
	}
	back, err := DecodeRecord(b, id)
	if err != nil || !reflect.DeepEqual(back, r) {
		t.Errorf("%+v, %v", back, err)
	}
	flipped := strings.Replace(string(b), `"web"`, `"wfb"`, 1)
	plain, _, _ := strings.Cut(string(b), "\n")
	for what, text := range map[string]string{"as written": string(b), "without a seal": plain + "\n", "a bit flipped": flipped} {
		if _, err := DecodeRecord([]byte(text), id); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if Unsealed([]byte(text)) != (what == "a bit flipped") {
			t.Errorf("%s: the seal says otherwise", what)
		}
	}
	for what, bad := range map[string]string{
		"newer":     strings.Replace(string(b), `"version":1`, `"version":2`, 1),
		"torn":      string(b[:len(b)/2]),
		"empty":     "",
		"other":     strings.Replace(string(b), id, strings.Repeat("f", 64), 1),
		"spec-less": `{"version":1,"id":"` + id + `","name":"x"}`,
	} {
		if _, err := DecodeRecord([]byte(bad), id); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	seed, _ := os.ReadFile("testdata/record.json")
	f.Add(seed)
	id := strings.Repeat("0123456789abcdef", 4)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b, id)
		if err != nil {
			return
		}
		if _, err := r.Encode(); err != nil {
			t.Error(err)
		}
	})
}

func TestHealthOfMoves(t *testing.T) {
	well := &Health{Status: Healthy, Log: []HealthResult{{ExitCode: 0}}}
	s, err := State{Status: Created}.Started(7, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if s.HealthStatus() != NoHealth {
		t.Errorf("without a check: %s", s.HealthStatus())
	}
	s.Health = well
	paused, _ := s.Become(Paused)
	ended, _ := s.Ended(End{}, false)
	for _, n := range []State{paused, ended} {
		if n.HealthStatus() != Unhealthy || len(n.Health.Log) != 1 || well.Status != Healthy {
			t.Errorf("%s: %+v, and before it %+v", n.Status, n.Health, well)
		}
	}
	match, err := Filters{"health": {"healthy", "starting"}}.ForList(Lookup{})
	if err != nil {
		t.Fatal(err)
	}
	if !match(&Info{State: s, Spec: &Spec{}}) || match(&Info{State: paused, Spec: &Spec{}}) {
		t.Error("filter health")
	}
}
