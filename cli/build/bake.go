package build

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/docker/cli/cli/command"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"berth/cli/build/bake"
	"berth/cli/build/request"
	"berth/cli/daemon"
	"berth/compose/file"
)

// bakeOptions are the flags of bake.
type bakeOptions struct {
	files, sets, allow, vars                         []string
	push, load, print, noCache, pull, quiet          bool
	sbom, provenance, call, list, progress, metadata string
	noCacheSet, pullSet, listTargets, listVariables  bool
	policy                                           policy
}

// NewBake is the command that builds what files describe.
func NewBake(d *command.DockerCli, _ Hooks) *cobra.Command {
	o := &bakeOptions{}
	c := &cobra.Command{
		Use:     "bake [OPTIONS] [URL] [TARGET...]",
		Aliases: []string{"f"},
		Short:   "Build from a file",
		Long:    "Build all targets that files describe, together: docker-bake.hcl, docker-bake.json,\nor the build sections of a compose file. They may be at a URL: a file, an archive or a git\nrepository, whose directories are then the contexts.",
		Example: "  berth bake\n  berth bake --print\n  berth bake -f compose.yaml web db\n  berth bake --set '*.platform=linux/arm64' --push\n  berth bake --list targets\n  berth bake https://github.com/example/app.git#v1 web",
		Annotations: map[string]string{
			Docker:         "buildx",
			"category-top": "5",
			"aliases":      "docker buildx bake",
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := knownBuilder(cmd, d); err != nil {
				return err
			}
			o.noCacheSet, o.pullSet = cmd.Flags().Changed("no-cache"), cmd.Flags().Changed("pull")
			return failure(d, runBake(cmd.Context(), d, o, args), nil)
		},
		DisableFlagsInUseLine: true,
	}
	f := c.Flags()
	f.StringArrayVar(&o.allow, "allow", nil, "Allow build to access specified resources")
	f.StringVar(&o.call, "call", "build", `Set method for evaluating build ("check", "outline", "targets")`)
	f.Var(&check{&o.call}, "check", `Shorthand for "--call=check"`)
	f.Lookup("check").NoOptDefVal = "true"
	f.StringArrayVarP(&o.files, "file", "f", nil, "Build definition file")
	f.StringVar(&o.list, "list", "", "List targets or variables")
	f.BoolVar(&o.load, "load", false, `Shorthand for "--set=*.output=type=docker". Conditional.`)
	f.Var(&o.policy, "policy", policyHelp)
	f.BoolVar(&o.print, "print", false, "Print the options without building")
	f.StringVar(&o.provenance, "provenance", "", `Shorthand for "--set=*.attest=type=provenance"`)
	f.BoolVar(&o.push, "push", false, `Shorthand for "--set=*.output=type=registry". Conditional.`)
	f.StringVar(&o.sbom, "sbom", "", `Shorthand for "--set=*.attest=type=sbom"`)
	f.StringArrayVar(&o.sets, "set", nil, `Override target value (e.g., "targetpattern.key=value")`)
	f.StringArrayVar(&o.vars, "var", nil, `Set a variable value (e.g., "name=value")`)
	installCommon(f, &o.progress, &o.noCache, &o.pull, &o.metadata)
	f.String("builder", "", "Override the configured builder instance")
	f.BoolVar(&o.listTargets, "list-targets", false, "List available targets")
	f.BoolVar(&o.listVariables, "list-variables", false, "List defined variables")
	for _, name := range []string{"builder", "list-targets", "list-variables"} {
		_ = f.MarkHidden(name)
	}
	return c
}

func runBake(ctx context.Context, d *command.DockerCli, o *bakeOptions, words []string) error {
	url, commandContext, names := bakeArguments(words)
	call, err := request.ParseCall(o.call)
	if err != nil {
		return err
	}
	access, err := bake.ParseAccess(o.allow)
	if err != nil {
		return err
	}
	if o.print && o.listed() != "" {
		return errors.New("--print and --list are mutually exclusive")
	}
	given, err := givenVariables(o.vars)
	if err != nil {
		return err
	}
	files, from, err := o.read(ctx, d, url)
	if err != nil {
		return err
	}
	for name, v := range map[string]string{"BAKE_CMD_CONTEXT": commandContext, "BAKE_LOCAL_PLATFORM": platforms.Format(platforms.DefaultSpec())} {
		if _, ok := given[name]; !ok {
			given[name] = v
		}
	}
	config, err := bake.Parse(files, given, environment(), func(q file.Question) (file.Answer, error) { return readCompose(ctx, q) })
	if err != nil {
		return err
	}
	if kind := o.listed(); kind != "" {
		return printList(d, config, kind)
	}
	targets, groups, err := config.Resolve(names, o.overrides(call))
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		if err := targets[name].Settle(from); err != nil {
			return fmt.Errorf("target %s: %w", name, err)
		}
	}
	if o.print {
		return printJSON(d.Out(), struct {
			Group  map[string]*bake.Group  `json:"group,omitempty"`
			Target map[string]*bake.Target `json:"target"`
		}{groups, targets})
	}
	if err := o.ask(d, access, targets); err != nil {
		return err
	}
	return o.build(ctx, d, targets, groups, call)
}

// readCompose has berth-compose read compose files.
func readCompose(ctx context.Context, q file.Question) (a file.Answer, err error) {
	program, err := daemon.Find("berth-compose")
	if err != nil {
		return a, err
	}
	text, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(text), &said
	text, err = cmd.Output()
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err != nil {
		return a, fmt.Errorf("have %s read compose files: %w %s", program, err, bytes.TrimSpace(said.Bytes()))
	}
	return a, nil
}

// givenVariables reads --var.
func givenVariables(texts []string) (map[string]string, error) {
	given := map[string]string{}
	for _, text := range texts {
		name, v, ok := strings.Cut(text, "=")
		if text == "" {
			continue
		}
		if !ok || name == "" {
			return nil, fmt.Errorf("invalid variable %q, expected key=value", text)
		}
		given[name] = v
	}
	return given, nil
}

// environment is what variables of files may be set by.
func environment() map[string]string {
	env := map[string]string{}
	if off := os.Getenv("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP"); off == "1" || off == "true" {
		return env
	}
	for _, text := range os.Environ() {
		if k, v, ok := strings.Cut(text, "="); ok {
			env[k] = v
		}
	}
	return env
}

// read reads the files: those at the URL, if there is one, and then those here.
func (o *bakeOptions) read(ctx context.Context, d *command.DockerCli, url string) ([]bake.File, *bake.Remote, error) {
	names := o.files
	if list := os.Getenv("BUILDX_BAKE_FILE"); len(names) == 0 && list != "" {
		sep := os.Getenv("BUILDX_BAKE_PATH_SEPARATOR")
		if sep == "" {
			sep = string(os.PathListSeparator)
		}
		for n := range strings.SplitSeq(list, sep) {
			if n = strings.TrimSpace(n); n != "" {
				names = append(names, n)
			}
		}
	}
	here, there := apart(names, url)
	if url == "" {
		files, err := bake.ReadFiles(here, d.In())
		return files, nil, err
	}
	mode, err := displayMode(o.progress, &o.quiet)
	if err != nil {
		return nil, nil, err
	}
	c, err := connect(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	show, err := openDisplay(screen(d), mode, builderName(d))
	if err != nil {
		return nil, nil, err
	}
	files, from, err := c.remoteFiles(ctx, url, there, show)
	if shown := show.close(); err == nil {
		err = shown
	}
	if err != nil || len(here) == 0 {
		return files, from, err
	}
	more, err := bake.ReadFiles(here, d.In())
	return append(files, more...), from, err
}

func (o *bakeOptions) listed() string {
	switch {
	case o.listTargets:
		return "targets"
	case o.listVariables:
		return "variables"
	}
	return o.list
}

// overrides are --set and its shorthands, the shorthands last.
func (o *bakeOptions) overrides(call request.Call) []string {
	sets := slices.Clone(o.sets)
	add := func(on bool, text string) {
		if on {
			sets = append(sets, text)
		}
	}
	add(o.push, "*.push=true")
	add(o.load, "*.load=true")
	add(call.Name != "", "*.call="+call.Name)
	add(o.noCacheSet, fmt.Sprintf("*.no-cache=%t", o.noCache))
	add(o.pullSet, fmt.Sprintf("*.pull=%t", o.pull))
	for kind, v := range map[string]string{"sbom": o.sbom, "provenance": o.provenance} {
		switch v {
		case "":
		case "true", "1":
			sets = append(sets, "*.attest=type="+kind)
		case "false", "0":
			sets = append(sets, "*.attest=type="+kind+",disabled=true")
		default:
			sets = append(sets, "*.attest=type="+kind+","+v)
		}
	}
	return sets
}

// ask gets permission for what targets touch outside of the working directory.
func (o *bakeOptions) ask(d *command.DockerCli, access *bake.Access, targets map[string]*bake.Target) error {
	missing := access.Missing(targets)
	if off := os.Getenv("BUILDX_BAKE_ENTITLEMENTS_FS"); off == "0" || off == "false" {
		missing = slices.DeleteFunc(missing, func(m string) bool { return strings.HasPrefix(m, "fs.") })
	}
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintln(d.Err(), "Your build is requesting privileges for following possibly insecure capabilities:")
	fmt.Fprintln(d.Err())
	flags := ""
	for _, m := range missing {
		fmt.Fprintf(d.Err(), " - %s\n", m)
		flags += " --allow " + m
	}
	fmt.Fprintf(d.Err(), "\nPass%s to grant requested privileges.\n", flags)
	if !d.In().IsTerminal() || o.progress == string(progressui.RawJSONMode) {
		return errors.New("additional privileges requested")
	}
	fmt.Fprint(d.Err(), "Do you want to grant requested privileges and continue? [y/N] ")
	line, _ := bufio.NewReader(d.In()).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return errors.New("additional privileges requested")
	}
	return nil
}

// build runs all targets together; one that is another's context comes before it.
func (o *bakeOptions) build(ctx context.Context, d *command.DockerCli, targets map[string]*bake.Target, groups map[string]*bake.Group, call request.Call) error {
	mode, err := displayMode(o.progress, &o.quiet)
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(targets))
	specs := map[string]*request.Spec{}
	for _, n := range names {
		if specs[n], err = targets[n].Spec(); err != nil {
			return fmt.Errorf("target %s: %w", n, err)
		}
		specs[n].NoPolicy = bool(o.policy)
	}
	c, err := connect(ctx, d)
	if err != nil {
		return err
	}
	defer c.Close()
	show, err := openDisplay(screen(d), mode, builderName(d))
	if err != nil {
		return err
	}
	wave := &wave{conn: c, show: show, auth: passwords(d), engine: c.engine(d), many: len(names) > 1, turns: map[string]*waveTurn{}}
	for _, n := range names {
		wave.turns[n] = newWaveTurn(n, specs[n])
	}
	wave.link()
	defer wave.release()
	group, together := errgroup.WithContext(ctx)
	for _, n := range names {
		group.Go(func() error { return wave.run(together, d, wave.turns[n]) })
	}
	err = group.Wait()
	if shown := show.close(); err == nil {
		err = shown
	}
	if err != nil {
		return wave.failure(d, err)
	}
	printWarnings(d.Err(), show.warnings, mode, wave.requests()...)
	return o.report(ctx, d, wave, asked{names: names, targets: targets, groups: groups, call: call})
}
