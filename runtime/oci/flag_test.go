package oci

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// Help fits a terminal of 80 columns.
func TestHelpFits(t *testing.T) {
	var b strings.Builder
	tool := &tool{name: "berth-oci"}
	tool.help(&b)
	for _, c := range commands() {
		tool.commandHelp(&b, &c)
	}
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > helpWidth || strings.HasSuffix(line, " \n") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

func TestParseFlags(t *testing.T) {
	defs := []flagDef{
		{name: "bundle", short: "b"}, {name: "keep", kind: boolFlag}, {name: "env", short: "e", kind: listFlag},
		{name: "preserve-fds", kind: intFlag}, {name: "format", value: "table"},
	}
	for _, c := range []struct {
		line      string
		first     bool   // the first word ends the flags
		want, err string // what was understood, in the order of defs, then the words
	}{
		{line: "", want: "|false||0|table|"},
		{line: "--bundle /b -keep x", want: "/b|true||0|table|x"},
		{line: "x --bundle=/b --keep=false y", want: "/b|false||0|table|x y"},
		{line: "-b=/a -b /c -e A=1 --env=B=2", want: "/c|false|A=1,B=2|0|table|"},
		{line: "x -- --keep", want: "|false||0|table|x --keep"},
		{line: "-e A x sh -c --keep", first: true, want: "|false|A|0|table|x sh -c --keep"},
		{line: "-- x --keep", first: true, want: "|false||0|table|x --keep"},
		{line: "--preserve-fds -1 --format json -", want: "|false||-1|json|-"},
		{line: "--nope", err: "flag provided but not defined: -nope"},
		{line: "x -9", err: "flag provided but not defined: -9"},
		{line: "--bundle", err: "flag needs an argument: -bundle"},
		{line: "--keep=maybe", err: `invalid boolean value "maybe" for -keep: parse error`},
		{line: "--preserve-fds two", err: `invalid value "two" for flag -preserve-fds: parse error`},
	} {
		f, err := parseFlags(defs, strings.Fields(c.line), c.first)
		if c.err != "" || err != nil {
			if err == nil || err.Error() != c.err {
				t.Errorf("%q: error %v, want %s", c.line, err, c.err)
			}
			continue
		}
		got := strings.Join([]string{
			f.text("bundle"), map[bool]string{true: "true", false: "false"}[f.bool("keep")], strings.Join(f.list("env"), ","),
			itoa(f.int("preserve-fds")), f.text("format"), strings.Join(f.args, " "),
		}, "|")
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.line, got, c.want)
		}
	}
	if f, err := parseFlags(defs, []string{"x", "-h"}, false); err != nil || !f.help {
		t.Errorf("-h: %v, %v", f.help, err)
	}
}

func itoa(n int64) string { return pidList([]int{int(n)})[1 : len(pidList([]int{int(n)}))-1] }

// Flags that callers of runc use must be known, whatever their order.
func TestCommandsKnowTheFlagsOfRunc(t *testing.T) {
	for name, flags := range map[string]string{
		"create":     "--bundle x -b x --console-socket x --pidfd-socket x --pid-file x --no-pivot --no-new-keyring --preserve-fds 1",
		"run":        "--bundle x -b x --console-socket x --pid-file x --no-pivot --no-new-keyring --preserve-fds 1 --detach -d --keep --no-subreaper",
		"exec":       "--console-socket x --cwd x --env x -e x --tty -t --user 1 -u 1 --additional-gids 1 -g 1 --process x -p x --detach -d --pid-file x --process-label x --apparmor x --no-new-privs --cap x -c x --preserve-fds 1 --cgroup x --ignore-paused",
		"kill":       "--all -a",
		"delete":     "--force -f",
		"list":       "--format json -f json --quiet -q",
		"ps":         "--format json -f json",
		"events":     "--stats --interval 1s",
		"update":     "--resources x -r x --blkio-weight 1 --cpu-period 1 --cpu-quota 1 --cpu-burst 1 --cpu-share 1 --cpu-rt-period 1 --cpu-rt-runtime 1 --cpuset-cpus 0 --cpuset-mems 0 --kernel-memory 1 --kernel-memory-tcp 1 --memory 1 --cpu-idle 1 --memory-reservation 1 --memory-swap 1 --pids-limit 1 --l3-cache-schema x --mem-bw-schema x",
		"checkpoint": "--image-path x --work-path x --parent-path x --leave-running --tcp-established --tcp-skip-in-flight --link-remap --ext-unix-sk --shell-job --lazy-pages --status-fd 3 --page-server x --file-locks --pre-dump --manage-cgroups-mode x --empty-ns network --auto-dedup",
		"restore":    "--console-socket x --image-path x --work-path x --tcp-established --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode x --bundle x -b x --detach -d --pid-file x --no-subreaper --no-pivot --empty-ns network --auto-dedup --lazy-pages --lsm-profile x --lsm-mount-context x",
		"spec":       "--bundle x -b x --rootless",
		"start":      "", "state": "", "pause": "", "resume": "", "features": "",
	} {
		c := findCommand(name)
		if c == nil {
			t.Errorf("no command %s", name)
			continue
		}
		if _, err := parseFlags(c.flags, strings.Fields(flags), c.firstWordEnds); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseFlags(globalFlags[:], strings.Fields("--root x --log x --log-format json --debug --systemd-cgroup --rootless auto --criu x"), true); err != nil {
		t.Error(err)
	}
}

func FuzzParseFlags(f *testing.F) {
	f.Add("run\x00--bundle\x00x\x00-d\x00--\x00id")
	f.Fuzz(func(t *testing.T, line string) {
		argv := strings.Split(line, "\x00")
		for _, c := range commands() {
			fs, err := parseFlags(c.flags, argv, c.firstWordEnds)
			if err == nil && len(fs.args) > len(argv) {
				t.Fatalf("%q became %q", argv, fs.args)
			}
			if i := slices.Index(argv, "--"); err == nil && i >= 0 && !slices.Equal(argv[len(argv)-min(len(fs.args), len(argv)-i-1):], fs.args[len(fs.args)-min(len(fs.args), len(argv)-i-1):]) {
				t.Fatalf("words behind -- were lost: %q gave %q", argv, fs.args)
			}
		}
	})
}
