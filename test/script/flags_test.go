package script

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// flagLists writes the lists of flags anew from the stock command line of this machine.
var flagLists = flag.Bool("flag-lists", false, "write testdata/flags/*.list from the help of the docker on PATH")

// flagVerbs are the commands whose flags have to be observed.
var flagVerbs = []string{"run", "create", "update"}

// TestFlags runs the scripts that look at the effect of every flag of docker run, create and update: from inside the container, in its
// cgroup, or, where a flag speaks to the client alone, at the client.
func TestFlags(t *testing.T) {
	cdi := t.TempDir()
	if err := os.Chmod(cdi, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cdi, "gpu.yaml"), []byte(gpus), 0o644); err != nil {
		t.Fatal(err)
	}
	host, bin, verbs := asked(t, flagEngine(cdi)...)
	for name, path := range clients(t, bin) {
		t.Run(name, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir:           "testdata/flags",
				UpdateScripts: *update,
				Condition:     flagConditions(name),
				Cmds:          verbs,
				Setup: func(env *testscript.Env) error {
					prepare(env, name, path, host)
					env.Setenv("CDI", cdi)
					env.Setenv("SOCKET", strings.TrimPrefix(host, "unix://"))
					n := env.Getenv("N")
					env.Setenv("SUBNET6", n[:4]+":"+n[4:])
					return nil
				},
			})
		})
	}
}

// gpus stand for graphics cards: each sets a variable.
const gpus = `cdiVersion: "0.5.0"
kind: nvidia.com/gpu
devices:
  - name: all
    containerEdits: {env: ["GPU=all"]}
  - name: "1"
    containerEdits: {env: ["GPU=one"]}
`

// flagEngine are the options that flags want of the engine. The budget for real-time processes is a twentieth of a CPU: other groups
// of the machine may have theirs, and scripts that run at once share this one.
func flagEngine(cdi string) []string {
	args := []string{"--cdi-spec-dir", cdi}
	if realtime() {
		args = append(args, "--cpu-rt-period", "1000000", "--cpu-rt-runtime", "50000")
	}
	return args
}

// realtime reports whether the kernel hands out the time of real-time processes by cgroup (RT_GROUP_SCHED, cgroup v1).
func realtime() bool {
	_, err := os.Stat("/sys/fs/cgroup/cpu/cpu.rt_runtime_us")
	return err == nil
}

func flagConditions(client string) func(string) (bool, error) {
	others := conditions(client)
	return func(cond string) (bool, error) {
		switch cond {
		case "realtime":
			return realtime(), nil
		case "prjquota":
			return false, nil // engines of tests have no file system of their own
		case "bfq":
			return len(glob("/sys/fs/cgroup/blkio/*/blkio.bfq.weight")) > 0, nil
		}
		if file, is := strings.CutPrefix(cond, "host:"); is {
			_, err := os.Stat(file)
			return err == nil, nil
		}
		return others(cond)
	}
}

func glob(pattern string) []string {
	found, _ := filepath.Glob(pattern) // the pattern is in order
	return found
}

// A mark in a script says which flags the section observes that it begins, up to the next empty line:
//
//	# flags: run --memory --memory-swap
//	# skips: run --blkio-weight: needs the BFQ scheduler
//
// The second says which of them are not observed here, and what the machine lacks for it.
var mark = regexp.MustCompile(`^# (flags|skips): (run|create|update)((?: --[a-z0-9-]+)+)(?:: (.+))?$`)

// A section is what a mark speaks of.
type section struct {
	at     string // file:line, for errors
	marked []marked
	text   string
}

type marked struct {
	verb    string
	flags   []string
	skipped string // what is lacking; "" where the flags are observed
}

// TestEveryFlagIsObserved fails for a flag of the stock command line that no script observes.
func TestEveryFlagIsObserved(t *testing.T) {
	if *flagLists {
		for _, verb := range flagVerbs {
			if err := os.WriteFile(listOf(verb), []byte(strings.Join(helpFlags(t, verb), "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	seen := map[string]string{}    // "run --memory" to the section that observes it
	lacking := map[string]string{} // what this machine lacks for those that no section observes here
	for _, file := range append(glob("testdata/flags/*.txtar"), glob("testdata/cli/*.txtar")...) {
		sections, err := readSections(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sections {
			for _, m := range s.marked {
				for _, f := range m.flags {
					needs, why := m.skipped, ""
					if needs == "" {
						needs, why = s.observes(m.verb, f, here)
					}
					switch name := m.verb + " " + f; {
					case why != "":
						t.Errorf("%s: %s is marked, but %s", s.at, name, why)
						fallthrough
					case needs == "":
						seen[name] = s.at
					default:
						lacking[name] = s.at + ": " + needs
					}
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(lacking)) {
		if seen[name] != "" {
			continue
		}
		seen[name] = lacking[name]
		t.Run(name, func(t *testing.T) { t.Skip(lacking[name]) })
	}
	for _, verb := range flagVerbs {
		b, err := os.ReadFile(listOf(verb))
		if err != nil {
			t.Fatal(err)
		}
		listed := strings.Fields(string(b))
		for _, f := range listed {
			if _, have := seen[verb+" "+f]; !have {
				t.Errorf("no script observes docker %s %s: add a section marked `# flags: %s %s` to testdata/flags", verb, f, verb, f)
			}
			delete(seen, verb+" "+f)
		}
	}
	for _, left := range slices.Sorted(maps.Keys(seen)) {
		if !ours(left) {
			t.Errorf("%s: docker has no flag %s", seen[left], left)
		}
	}
}

// ours tells the flags that Berth has beyond Docker's of version 28.
func ours(verbFlag string) bool {
	return slices.Contains([]string{"run --umask"}, verbFlag)
}

// TestListsAreCurrent compares the lists with the docker on PATH. A newer one than the lists' may have flags that nobody observes.
func TestListsAreCurrent(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("needs the stock docker command line on PATH")
	}
	for _, verb := range flagVerbs {
		b, err := os.ReadFile(listOf(verb))
		if err != nil {
			t.Fatal(err)
		}
		listed := strings.Fields(string(b))
		for _, f := range helpFlags(t, verb) {
			if !slices.Contains(listed, f) {
				t.Errorf("docker %s has a flag %s that the list has not: go test ./test/script -run EveryFlag -flag-lists", verb, f)
			}
		}
	}
}

func listOf(verb string) string { return filepath.Join("testdata", "flags", verb+".list") }

var helpLine = regexp.MustCompile(`(?m)^ +(?:-[a-zA-Z], |    )--([a-z0-9-]+)`)

// helpFlags reads a command's flags from its help, "--help" itself left out. Nothing is asked of an engine, which could hide some.
func helpFlags(t *testing.T, verb string) (flags []string) {
	t.Helper()
	cmd := exec.Command("docker", verb, "--help")
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix:///nonexistent")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range helpLine.FindAllStringSubmatch(string(out), -1) {
		if m[1] != "help" {
			flags = append(flags, "--"+m[1])
		}
	}
	return flags
}

// readSections gives the marked sections of a script.
func readSections(file string) ([]section, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	text, _, _ := strings.Cut(string(b), "\n-- ")
	var all []section
	open := false
	for i, line := range strings.Split(text, "\n") {
		m := mark.FindStringSubmatch(line)
		switch {
		case m == nil && strings.HasPrefix(line, "# flags") || m == nil && strings.HasPrefix(line, "# skips"):
			return nil, fmt.Errorf("%s:%d: no mark: %s", file, i+1, line)
		case m == nil && line == "":
			open = false
		case m == nil && open:
			all[len(all)-1].text += line + "\n"
		case m != nil:
			if (m[1] == "skips") != (m[4] != "") {
				return nil, fmt.Errorf("%s:%d: what is skipped needs a reason, what is observed none", file, i+1)
			}
			if !open || all[len(all)-1].text != "" {
				all, open = append(all, section{at: fmt.Sprintf("%s:%d", file, i+1)}), true
			}
			s := &all[len(all)-1]
			s.marked = append(s.marked, marked{m[2], strings.Fields(m[3]), m[4]})
		}
	}
	return all, nil
}

// shorthands of flags that have one.
var shorthands = map[string]string{
	"--attach": "a", "--cpu-shares": "c", "--detach": "d", "--env": "e", "--hostname": "h", "--interactive": "i", "--label": "l", "--memory": "m",
	"--publish": "p", "--publish-all": "P", "--quiet": "q", "--tty": "t", "--user": "u", "--volume": "v", "--workdir": "w",
}

// observes looks whether a section observes a flag here: the flag is used with the verb, and something is compared after. Where the flag is
// used with success anywhere in the section, that it is refused otherwise is not enough. needs is what the machine lacks for it; why
// says why it is observed nowhere.
func (s section) observes(verb, flag string, here func(conditions []string) bool) (needs, why string) {
	used := regexp.MustCompile(` ` + flag + `[ =\n]`)
	if short := shorthands[flag]; short != "" {
		used = regexp.MustCompile(` (` + flag + `[ =\n]|-[a-z]*` + short + `[a-z]* )`)
	}
	uses := func(command string) bool {
		return strings.Contains(command, "$CLI "+verb+" ") && used.MatchString(command)
	}
	refusals := true // are all there is
	for line := range strings.Lines(s.text) {
		if _, command := splitConditions(line); uses(command) && !refusal.MatchString(command) {
			refusals = false
		}
	}
	why = "not used there"
	begun := false
	var missing []string
	for line := range strings.Lines(s.text) {
		conditions, command := splitConditions(line)
		starts := uses(command) && (refusals || !refusal.MatchString(command))
		compares := begun && observation.MatchString(command) || starts && strings.Contains(command, "exec within ") // tries until it holds
		switch {
		case !starts && !compares:
			continue
		case !here(conditions):
			missing = append(missing, conditions...)
			continue
		case compares:
			return "", ""
		}
		begun, why = true, "nothing is observed after it"
	}
	if len(missing) == 0 {
		return "", why
	}
	slices.Sort(missing)
	return "needs what these conditions say: " + strings.Join(slices.Compact(missing), " "), ""
}

// refusal is a command that must fail.
var refusal = regexp.MustCompile(`^(! exec |exec code )`)

// splitConditions gives the conditions of a script's line, without their brackets, and the rest of it.
func splitConditions(line string) (conditions []string, command string) {
	for strings.HasPrefix(line, "[") {
		c, rest, ok := strings.Cut(line[1:], "]")
		if !ok {
			break
		}
		conditions, line = append(conditions, c), strings.TrimLeft(rest, " ")
	}
	return conditions, line
}

// here reports whether the conditions of a line hold on this machine with any of the clients.
func here(conditions []string) bool {
	for _, client := range []string{"docker", "berth"} {
		known := flagConditions(client)
		if !slices.ContainsFunc(conditions, func(c string) bool {
			name, not := strings.CutPrefix(c, "!")
			holds, err := known(name)
			if program, is := strings.CutPrefix(name, "exec:"); is { // testscript's own
				_, err = exec.LookPath(program)
				holds, err = err == nil, nil
			}
			return err != nil || holds == not
		}) {
			return true
		}
	}
	return false
}

// observation is a line that fails when what it looks at is otherwise.
var observation = regexp.MustCompile(`^!? ?(stdout|stderr|cmp|grep|exists|exec code|exec within|exec sh -c .*(test|grep)) ?`)

// TestMarks holds the reading of marks against what must not pass for an observation.
func TestMarks(t *testing.T) {
	bare := func(conditions []string) bool { return len(conditions) == 0 } // a machine that has nothing
	for _, c := range []struct{ text, flag, needs, want string }{
		{"exec $CLI run --memory 1g box true\nstdout x\n", "--memory", "", ""},
		{"exec $CLI run -dm 1g box true\nstdout x\n", "--memory", "", ""},
		{"exec $CLI run --memory-swap 1g box true\nstdout x\n", "--memory", "", "not used there"},
		{"stdout x\nexec $CLI run --memory 1g box true\n", "--memory", "", "nothing is observed after it"},
		{"exec $CLI update --memory 1g box\nstdout x\n", "--memory", "", "not used there"},
		{"! exec $CLI run --memory 1 box true\nstderr x\n", "--memory", "", ""},
		{"[a] [!b] exec $CLI run --memory 1g box true\n[c] stdout x\n", "--memory", "!b a", ""},
		{"exec $CLI run --memory 1g box true\n[a] stdout x\n", "--memory", "a", ""},
		{"[a] exec $CLI run --memory 1g box true\n[a] stdout x\n! exec $CLI run --memory 1 box true\nstderr x\n", "--memory", "a", ""},
		{"[a] exec $CLI run --memory 1g box true\n[a] stdout x\nexec $CLI run --memory 2g box true\nstdout x\n", "--memory", "", ""},
	} {
		if c.needs != "" {
			c.needs = "needs what these conditions say: " + c.needs
		}
		if needs, why := (section{text: c.text}).observes("run", c.flag, bare); why != c.want || needs != c.needs {
			t.Errorf("%q: %q %q, want %q %q", c.text, needs, why, c.needs, c.want)
		}
	}
	file := filepath.Join(t.TempDir(), "x.txtar")
	if err := os.WriteFile(file, []byte("# flags: run --a --b\nexec one\n\nexec two\n\n# skips: run --c: needs a whale\n# flags: update --d\nexec three\n-- f --\n# flags: run --e\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := readSections(file)
	if err != nil || len(s) != 2 || s[0].text != "exec one\n" || s[1].text != "exec three\n" || len(s[1].marked) != 2 || s[1].marked[0].skipped != "needs a whale" {
		t.Errorf("%+v, %v", s, err)
	}
}
