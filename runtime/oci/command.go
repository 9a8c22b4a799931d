package oci

import (
	"fmt"
	"io"
	"runtime"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// command is one verb of the command line.
type command struct {
	name     string
	words    string // what follows the flags, for help; each way to say it in a line
	usage    string
	flags    []flagDef
	min, max int // how many words; max -1: no limit
	// firstWordEnds: flags behind the first word are the container's, not ours
	firstWordEnds bool
	run           func(*tool, *flagSet) (int, error)
}

var globalFlags = [...]flagDef{
	{name: "root", usage: "directory for the state of containers (default: /run/berth-oci, for users $XDG_RUNTIME_DIR/berth-oci)"},
	{name: "log", usage: "file to append log lines to (default: the standard error)"},
	{name: "log-format", value: "text", usage: "format of log lines: text or json"},
	{name: "debug", kind: boolFlag, usage: "log what is done"},
	{name: "systemd-cgroup", kind: boolFlag, usage: "let systemd make the cgroup; cgroupsPath is then slice:prefix:name"},
	{name: "rootless", value: "auto", usage: "do without cgroups where they are refused: true, false or auto"},
	{name: "criu", hidden: true, usage: "path of the criu binary (default: found in $PATH)"},
	{name: "version", short: "v", kind: boolFlag, usage: "print the version"},
}

// Flags that several commands have.
var (
	bundleFlag        = flagDef{name: "bundle", short: "b", usage: "directory of the bundle (default: the current one)"}
	consoleSocketFlag = flagDef{name: "console-socket", usage: "unix socket that receives the master end of the container's terminal"}
	pidfdSocketFlag   = flagDef{name: "pidfd-socket", usage: "unix socket that receives a pidfd of the process"}
	pidFileFlag       = flagDef{name: "pid-file", usage: "file to write the process id to"}
	noPivotFlag       = flagDef{name: "no-pivot", kind: boolFlag, usage: "enter the root without pivot_root, for roots on a ramdisk"}
	noKeyringFlag     = flagDef{name: "no-new-keyring", kind: boolFlag, usage: "keep the caller's session keyring"}
	preserveFlag      = flagDef{name: "preserve-fds", kind: intFlag, usage: "hand N more file descriptors to the process (after stdio and $LISTEN_FDS)"}
	detachFlag        = flagDef{name: "detach", short: "d", kind: boolFlag, usage: "do not wait for the process"}
	noSubreaperFlag   = flagDef{name: "no-subreaper", kind: boolFlag, usage: "do not adopt the container's orphans"}
	formatFlag        = flagDef{name: "format", short: "f", value: "table", usage: "table or json"}
	imagePathFlag     = flagDef{name: "image-path", usage: "directory of the image files"}
	workPathFlag      = flagDef{name: "work-path", usage: "directory for working files and logs"}
	tcpFlag           = flagDef{name: "tcp-established", kind: boolFlag, usage: "allow open TCP connections"}
	unixFlag          = flagDef{name: "ext-unix-sk", kind: boolFlag, usage: "allow unix sockets to the outside"}
	shellJobFlag      = flagDef{name: "shell-job", kind: boolFlag, usage: "allow processes whose session leader is outside"}
	fileLocksFlag     = flagDef{name: "file-locks", kind: boolFlag, usage: "save and restore file locks"}
	cgroupsModeFlag   = flagDef{name: "manage-cgroups-mode", usage: "soft, full, strict or ignore (default: soft)"}
	emptyNSFlag       = flagDef{name: "empty-ns", kind: listFlag, usage: "make this namespace, but do not restore what was in it (network)"}
	dedupFlag         = flagDef{name: "auto-dedup", kind: boolFlag, usage: "drop pages from parent images"}
	lazyFlag          = flagDef{name: "lazy-pages", kind: boolFlag, usage: "restore memory when it is touched"}
)

const idWords = "<container-id>"

// commands gives every verb in the order in which help lists them.
func commands() []command {
	return []command{
		{name: "checkpoint", words: idWords, min: 1, max: 1, run: (*tool).checkpoint, usage: "checkpoint a running container", flags: []flagDef{
			imagePathFlag, workPathFlag, {name: "parent-path", usage: "directory of earlier image files, relative to image-path"},
			{name: "leave-running", kind: boolFlag, usage: "let the container run on"}, tcpFlag,
			{name: "tcp-skip-in-flight", kind: boolFlag, usage: "skip TCP connections in the making"},
			{name: "link-remap", kind: boolFlag, usage: "link unlinked files back where possible"}, unixFlag, shellJobFlag, lazyFlag,
			{name: "status-fd", kind: intFlag, value: "-1", usage: "descriptor that gets a zero byte once lazy pages are served"},
			{name: "page-server", usage: "ADDRESS:PORT of the page server"}, fileLocksFlag,
			{name: "pre-dump", kind: boolFlag, usage: "save memory only and let the container run on"}, cgroupsModeFlag, emptyNSFlag, dedupFlag}},
		{name: "create", words: idWords, min: 1, max: 1, run: (*tool).create, usage: "create a container", flags: []flagDef{
			bundleFlag, consoleSocketFlag, pidfdSocketFlag, pidFileFlag, noPivotFlag, noKeyringFlag, preserveFlag}},
		{name: "delete", words: idWords, min: 1, max: 1, run: (*tool).delete, usage: "delete what a container holds", flags: []flagDef{
			{name: "force", short: "f", kind: boolFlag, usage: "kill the container first if it still runs"}}},
		{name: "events", words: idWords, min: 1, max: 1, run: (*tool).events, usage: "show out-of-memory events and usage statistics", flags: []flagDef{
			{name: "interval", value: "5s", usage: "time between statistics"},
			{name: "stats", kind: boolFlag, usage: "show the statistics once"}}},
		{name: "exec", words: idWords + " <command> [arguments...]\n-p process.json " + idWords, min: 1, max: -1, firstWordEnds: true,
			run: (*tool).exec, usage: "run another process in a container", flags: []flagDef{
				consoleSocketFlag, pidfdSocketFlag, {name: "cwd", usage: "working directory in the container"},
				{name: "env", short: "e", kind: listFlag, usage: "set an environment variable"},
				{name: "tty", short: "t", kind: boolFlag, usage: "give the process a terminal"},
				{name: "user", short: "u", usage: "UID[:GID] of the process"},
				{name: "additional-gids", short: "g", kind: listFlag, usage: "one more group id"},
				{name: "process", short: "p", usage: "file with the process as in config.json"},
				detachFlag, pidFileFlag, {name: "process-label", usage: "SELinux label of the process"},
				{name: "apparmor", usage: "AppArmor profile of the process"},
				{name: "no-new-privs", kind: boolFlag, usage: "set no_new_privs"},
				{name: "cap", short: "c", kind: listFlag, usage: "add a capability"}, preserveFlag,
				{name: "cgroup", kind: listFlag, usage: "existing cgroup below the container's: [<controller>:]<path>"},
				{name: "ignore-paused", kind: boolFlag, usage: "also in a paused container"}}},
		{name: "features", max: 0, run: (*tool).features, usage: "show what this runtime can do, as JSON"},
		{name: "kill", words: idWords + " [signal]", min: 1, max: 2, run: (*tool).kill, usage: "send a signal (default: SIGTERM) to a container", flags: []flagDef{
			{name: "all", short: "a", kind: boolFlag, hidden: true, usage: "to all processes of the container"}}},
		{name: "list", max: 0, run: (*tool).list, usage: "list the containers below the root", flags: []flagDef{
			formatFlag, {name: "quiet", short: "q", kind: boolFlag, usage: "ids only"}}},
		{name: "pause", words: idWords, min: 1, max: 1, run: (*tool).pause, usage: "freeze all processes of a container"},
		{name: "ps", words: idWords + " [ps options]", min: 1, max: -1, firstWordEnds: true, run: (*tool).ps,
			usage: "show the processes of a container", flags: []flagDef{formatFlag}},
		{name: "restore", words: idWords, min: 1, max: 1, run: (*tool).restore, usage: "restore a container from a checkpoint", flags: []flagDef{
			consoleSocketFlag, imagePathFlag, workPathFlag, tcpFlag, unixFlag, shellJobFlag, fileLocksFlag, cgroupsModeFlag, bundleFlag,
			detachFlag, pidFileFlag, noSubreaperFlag, noPivotFlag, emptyNSFlag, dedupFlag, lazyFlag,
			{name: "lsm-profile", usage: "TYPE:NAME of the security profile to restore under"},
			{name: "lsm-mount-context", usage: "SELinux context for restored mounts"}}},
		{name: "resume", words: idWords, min: 1, max: 1, run: (*tool).resume, usage: "thaw all processes of a container"},
		{name: "run", words: idWords, min: 1, max: 1, run: (*tool).runCommand, usage: "create a container and start it", flags: []flagDef{
			bundleFlag, consoleSocketFlag, pidfdSocketFlag, detachFlag, {name: "keep", kind: boolFlag, usage: "do not delete the container when it ends"},
			pidFileFlag, noSubreaperFlag, noPivotFlag, noKeyringFlag, preserveFlag}},
		{name: "spec", max: 0, run: (*tool).spec, usage: "write a config.json to start from", flags: []flagDef{
			bundleFlag, {name: "rootless", kind: boolFlag, usage: "for a container without root privileges"}}},
		{name: "start", words: idWords, min: 1, max: 1, run: (*tool).start, usage: "run the program of a created container"},
		{name: "state", words: idWords, min: 1, max: 1, run: (*tool).state, usage: "show the state of a container"},
		{name: "update", words: idWords, min: 1, max: 1, run: (*tool).update, usage: "change a container's limits", flags: updateFlags[:]},
	}
}

// findCommand gives the verb with that name, or nil.
func findCommand(name string) *command {
	all := commands()
	for i := range all {
		if all[i].name == name {
			return &all[i]
		}
	}
	return nil
}

// help prints what the tool is and can do.
func (t *tool) help(w io.Writer) {
	fmt.Fprintf(w, "NAME:\n   %s - Open Container Initiative runtime of Berth\n\nUSAGE:\n   %s [global options] command [command options] [arguments...]\n\nVERSION:\n   %s\n\nCOMMANDS:\n",
		t.name, t.name, semantic(t.build.Version))
	for _, c := range commands() {
		fmt.Fprintf(w, "   %-12s %s\n", c.name, c.usage)
	}
	fmt.Fprint(w, "   help, h      show this, or help on one command\n\nGLOBAL OPTIONS:\n")
	printFlags(w, globalFlags[:])
}

// commandHelp prints what one verb takes.
func (t *tool) commandHelp(w io.Writer, c *command) {
	fmt.Fprintf(w, "NAME:\n   %s %s - %s\n\nUSAGE:\n", t.name, c.name, c.usage)
	options := ""
	if len(c.flags) > 0 {
		options = " [command options]"
	}
	for words := range strings.SplitSeq(c.words, "\n") {
		fmt.Fprintf(w, "   %s\n", strings.TrimSpace(t.name+" "+c.name+options+" "+words))
	}
	if len(c.flags) > 0 {
		fmt.Fprint(w, "\nOPTIONS:\n")
		printFlags(w, c.flags)
	}
}

func printFlags(w io.Writer, defs []flagDef) {
	for _, d := range append(defs, flagDef{name: "help", short: "h", kind: boolFlag, usage: "show help"}) {
		if d.hidden {
			continue
		}
		names := "--" + d.name
		if d.short != "" {
			names += ", -" + d.short
		}
		if d.kind != boolFlag {
			names += " value"
		}
		usage := d.usage
		if d.value != "" && !strings.Contains(usage, "default") {
			usage += " (default: " + d.value + ")"
		}
		fmt.Fprintf(w, "   %-28s %s\n", names, wrap(usage, helpWidth-helpIndent, "\n"+strings.Repeat(" ", helpIndent)))
	}
}

// Help fits a terminal of 80 columns; what a flag does begins at the same column in all its lines.
const (
	helpWidth  = 80
	helpIndent = 32
)

// wrap breaks a text between words so that no line is longer than width, unless one word is.
func wrap(text string, width int, newline string) string {
	var b strings.Builder
	length := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i > 0 && length+1+len(word) > width:
			b.WriteString(newline)
			length = 0
		case i > 0:
			b.WriteByte(' ')
			length++
		}
		b.WriteString(word)
		length += len(word)
	}
	return b.String()
}

// version prints what docker, containerd and podman read to show the runtime's version.
func (t *tool) version(w io.Writer) {
	fmt.Fprintf(w, "%s version %s\ncommit: %s\nspec: %s\ngo: %s\n", t.name, semantic(t.build.Version), t.build.Commit, specs.Version, runtime.Version())
}

// semantic gives a version that callers can compare: a build between releases has only a commit's name.
func semantic(v string) string {
	if _, ok := versionNumber(strings.TrimPrefix(v, "v"), 0); ok {
		return strings.TrimPrefix(v, "v")
	}
	return "0.0.0+" + v
}
