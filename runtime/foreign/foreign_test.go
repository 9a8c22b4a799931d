package foreign

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEncodeDecode(t *testing.T) {
	p := &Program{
		Name: "rt", Dir: "/b", Env: []string{"A=b", "C="}, Steps: []Command{{"/bin/rt", "create", "", "x y"}, {"/bin/rt", "start"}},
		Undo: []Command{{"/bin/rt", "delete"}}, PidFile: "/b/pid", Console: "/b/tty", Log: "/b/log", Patience: time.Second,
		Remove: []string{"/b/x", "/b/y"},
	}
	got, err := Decode(p.Encode())
	if err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("%+v, %v", got, err)
	}
	for what, bad := range map[string]*Program{
		"no step":     {PidFile: "/p", Patience: 1},
		"no pid file": {Steps: p.Steps, Patience: 1},
		"no deadline": {Steps: p.Steps, PidFile: "/p"},
		"endless":     {Steps: p.Steps, PidFile: "/p", Patience: 48 * time.Hour},
		"no words":    {Steps: []Command{{}}, PidFile: "/p", Patience: 1},
		"on PATH":     {Steps: []Command{{"rt"}}, PidFile: "/p", Patience: 1},
		"bad undo":    {Steps: p.Steps, Undo: []Command{{"rt"}}, PidFile: "/p", Patience: 1},
	} {
		if _, err := Decode(bad.Encode()); err == nil {
			t.Errorf("%s: decoded", what)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add((&Program{Steps: []Command{{"/a", ""}}, PidFile: "/p", Patience: 1}).Encode())
	f.Add(magic)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(p.Encode())
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}

// rt is a runtime of a few lines: create leaves a process behind, start wakes it.
const rt = `
dir=$1; shift
case $1 in
create)
	exec 3<&0 # what is put behind gets /dev/null for 0
	(while [ ! -e $dir/go ]; do sleep 0.01; done; echo said; echo complained >&2; read line; echo "heard $line"; exit 7) <&3 &
	echo $! > $dir/pid;;
start) touch $dir/go;;
hang) sleep 1000;;
fail) echo '{"level":"error","msg":"the \"reason\""}' > $dir/log; exit 4;;
undo) echo undone > $dir/undone;;
nopid) exit 0;;
esac
`

type place struct{ dir, script string }

func prepare(t *testing.T) place {
	// What the runtime leaves becomes our child, as it becomes the keeper's.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Skipf("needs PR_SET_CHILD_SUBREAPER: %v", err)
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "rt")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"+rt), 0o755); err != nil {
		t.Fatal(err)
	}
	return place{dir, script}
}

func (p place) program(verbs ...string) *Program {
	out := &Program{Name: "rt", Dir: p.dir, Env: []string{"PATH=/usr/bin:/bin"}, PidFile: p.dir + "/pid", Log: p.dir + "/log", Patience: 20 * time.Second,
		Undo: []Command{{p.script, p.dir, "undo"}}}
	for _, v := range verbs {
		out.Steps = append(out.Steps, Command{p.script, p.dir, v})
	}
	return out
}

func TestStart(t *testing.T) {
	p := prepare(t)
	in, input, _ := os.Pipe()
	output, out, _ := os.Pipe()
	program := p.program("create", "start")
	program.Remove = []string{program.PidFile, p.dir + "/none"}
	proc, err := Start(program, Stdio{In: int(in.Fd()), Out: int(out.Fd()), Err: int(out.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	if _, err := os.Lstat(program.PidFile); !os.IsNotExist(err) {
		t.Errorf("a file that is not needed any more: %v", err)
	}
	fmt.Fprintln(input, "you")
	input.Close()
	var said strings.Builder
	b := make([]byte, 100)
	for n := 1; n > 0; {
		n, _ = output.Read(b)
		said.Write(b[:max(n, 0)])
	}
	if got := said.String(); got != "said\ncomplained\nheard you\n" {
		t.Errorf("%q", got)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(proc.PID, &ws, 0, nil); err != nil || ws.ExitStatus() != 7 || proc.Console != -1 {
		t.Errorf("%v %v, console %d", ws, err, proc.Console)
	}
	unix.Close(proc.PidFD)
}

func TestStartFails(t *testing.T) {
	for verb, want := range map[string]string{
		"fail": "exit code 4", "nopid": "has not said which process", "hang": "does not end, and was killed",
	} {
		p := prepare(t)
		program := p.program(verb)
		if verb == "hang" {
			program.Patience = 200 * time.Millisecond
		}
		begun := time.Now()
		_, err := Start(program, Stdio{In: 0, Out: 1, Err: 2})
		if err == nil || !strings.Contains(err.Error(), want) || time.Since(begun) > 10*time.Second {
			t.Errorf("%s: %v after %v", verb, err, time.Since(begun))
		}
		if verb == "fail" && !strings.HasSuffix(err.Error(), `failed with exit code 4: the "reason"`) {
			t.Errorf("its own words are missing: %v", err)
		}
		if _, err := os.Stat(p.dir + "/undone"); err != nil {
			t.Errorf("%s: nothing was undone", verb)
		}
	}
	p := prepare(t)
	program := p.program("create")
	program.Console = p.dir + "/tty" // nobody connects
	if _, err := Start(program, Stdio{}); err == nil || !strings.Contains(err.Error(), "has sent no terminal") {
		t.Error(err)
	}
	os.WriteFile(p.dir+"/go", nil, 0o600)
	program = p.program("create")
	program.Steps[0][0] = "/nonexistent"
	if _, err := Start(program, Stdio{}); err == nil || !strings.Contains(err.Error(), "cannot be executed") {
		t.Error(err)
	}
}

func TestMessage(t *testing.T) {
	for line, want := range map[string]string{
		`{"level":"error","msg":"a \"b\"\nc","time":"x"}`: "a \"b\"\nc", `{"msg": "spaced"}`: "spaced", `plain`: "plain", ``: "", `{"level":"error"}`: "", `{"msg":bad}`: "", `{"msg":"open`: "",
	} {
		if got := message([]byte(line)); got != want {
			t.Errorf("%s: %q", line, got)
		}
	}
}
