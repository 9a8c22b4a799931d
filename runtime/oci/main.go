package oci

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/failpoint"
)

// Build is what the binary knows about itself; main fills it.
type Build struct {
	Version, Commit string
}

// tool is one invocation of the command line.
type tool struct {
	name         string // what we were called: shown in usage and errors
	build        Build
	root         string // directory of all containers' directories
	rootSet      bool   // --root was given
	systemd      bool   // --systemd-cgroup
	criu         string // --criu: the binary for checkpoint and restore
	rootlessWord string // --rootless: true, false or auto
	log          *slog.Logger
	loud         bool // the log is the standard error
	out          io.Writer
	err          io.Writer
}

// exit carries an exit status that is not 1 together with the error that led to it.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string { return e.err.Error() }
func (e *exit) Unwrap() error { return e.err }

// Main runs the command line in argv (argv[0] is the program's name) and gives the exit status.
func Main(argv []string, b Build) int {
	if len(argv) == 2 && argv[1] == holdWord {
		hold()
		return 0
	}
	if points := os.Getenv(failpoint.Env); points != "" {
		if err := failpoint.Arm(points); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	t := &tool{name: filepath.Base(argv[0]), build: b, out: os.Stdout, err: os.Stderr, loud: true}
	code, err := t.main(argv[1:])
	if err == nil {
		return code
	}
	t.log.Error(err.Error())
	if !t.loud {
		fmt.Fprintln(t.err, err)
	}
	var e *exit
	if errors.As(err, &e) {
		return e.code
	}
	return 1
}

// main finds the command and runs it.
func (t *tool) main(argv []string) (int, error) {
	f, err := parseFlags(globalFlags[:], argv, true)
	if err != nil {
		t.log, _, _ = openLog(&flagSet{}, t.err)
		fmt.Fprintf(t.out, "Incorrect Usage. %s\n\n", err)
		t.help(t.out)
		return 1, err
	}
	if t.log, t.loud, err = openLog(f, t.err); err != nil {
		return 1, err
	}
	word := f.arg(0)
	switch {
	case f.bool("version"):
		t.version(t.out)
		return 0, nil
	case f.help || word == "" || word == "help" || word == "h":
		return t.topic(f.arg(1))
	}
	c := findCommand(word)
	if c == nil {
		return t.topic(word)
	}
	if err := t.globals(f); err != nil {
		return 1, err
	}
	return t.command(c, f.args[1:])
}

// globals takes over the flags in front of the command.
func (t *tool) globals(f *flagSet) error {
	t.systemd, t.criu, t.rootSet = f.bool("systemd-cgroup"), f.text("criu"), f.given("root")
	switch t.rootlessWord = strings.ToLower(f.text("rootless")); t.rootlessWord {
	case "", "auto", "true", "false":
	default:
		return fmt.Errorf("--rootless takes true, false or auto, not %q", t.rootlessWord)
	}
	var err error
	if !t.rootSet {
		t.root, err = defaultRoot()
		return err
	}
	if t.root, err = filepath.Abs(f.text("root")); err != nil {
		return err
	}
	if t.root == "/" {
		//lint:ignore ST1005 runc's words
		return errors.New("Option --root argument should not be set to /")
	}
	return nil
}

// command parses a command's own flags, checks the number of words, and runs it.
func (t *tool) command(c *command, argv []string) (int, error) {
	f, err := parseFlags(c.flags, argv, c.firstWordEnds)
	switch {
	case f.help:
		t.commandHelp(t.out, c)
		return 0, nil
	case err != nil:
		fmt.Fprintf(t.out, "Incorrect Usage: %s\n\n", err)
		t.commandHelp(t.out, c)
		return 1, err
	}
	if n := len(f.args); n < c.min || c.max >= 0 && n > c.max {
		fmt.Fprint(t.out, "Incorrect Usage.\n\n")
		t.commandHelp(t.out, c)
		return 1, c.wrongCount(t.name, n)
	}
	return c.run(t, f)
}

// wrongCount is the error for n words.
func (c *command) wrongCount(tool string, n int) error {
	switch {
	case c.min == c.max:
		return fmt.Errorf("%s: %q requires exactly %d argument(s)", tool, c.name, c.min)
	case n < c.min:
		return fmt.Errorf("%s: %q requires a minimum of %d argument(s)", tool, c.name, c.min)
	}
	return fmt.Errorf("%s: %q requires a maximum of %d argument(s)", tool, c.name, c.max)
}

// topic shows help: about one command, or about all when word is "".
func (t *tool) topic(word string) (int, error) {
	if word == "" || word == "--help" || word == "-h" {
		t.help(t.out)
		return 0, nil
	}
	if c := findCommand(word); c != nil {
		t.commandHelp(t.out, c)
		return 0, nil
	}
	fmt.Fprintf(t.out, "No help topic for '%s'\n", word)
	return 3, nil
}

// rootless reports whether cgroups are used where they can be and done without where they cannot.
// It is asked only after a refusal: the answer costs a file.
func (t *tool) rootless() bool {
	switch t.rootlessWord {
	case "true":
		return true
	case "false":
		return false
	}
	return unix.Geteuid() != 0 || inUserNamespace()
}

// defaultRoot is where containers' directories are without --root. For users it is below
// XDG_RUNTIME_DIR, with the sticky bit that keeps clean-up daemons away from it.
func defaultRoot() (string, error) {
	const system = "/run/berth-oci"
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" || unix.Geteuid() == 0 && (!inUserNamespace() || os.Getenv("USER") == "root") {
		return system, nil
	}
	root := filepath.Join(dir, "berth-oci")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", fmt.Errorf("the path in $XDG_RUNTIME_DIR must be writable by the user: %w", err)
	}
	if err := os.Chmod(root, 0o700|os.ModeSticky); err != nil {
		return "", fmt.Errorf("the path in $XDG_RUNTIME_DIR: %w", err)
	}
	return root, nil
}

// inUserNamespace reports whether our user namespace is not the machine's first one, which maps every
// id to itself (user_namespaces(7)).
func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	w := strings.Fields(string(b))
	return !(len(w) == 3 && w[0] == "0" && w[1] == "0" && w[2] == "4294967295")
}
