package build

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"berth/cli/build/bake"
	"berth/cli/build/request"
)

// bakeOptions are the flags of bake.
type bakeOptions struct {
	files, sets, allow, vars                         []string
	push, load, print, noCache, pull, quiet          bool
	sbom, provenance, call, list, progress, metadata string
	noCacheSet, pullSet, listTargets, listVariables  bool
}

// NewBake is the command that builds what files describe.
func NewBake(d *command.DockerCli, _ Hooks) *cobra.Command {
	o := &bakeOptions{}
	c := &cobra.Command{
		Use:     "bake [OPTIONS] [TARGET...]",
		Aliases: []string{"f"},
		Short:   "Build from a file",
		Long:    "Build all targets that files describe, together: docker-bake.hcl, docker-bake.json,\nor the build sections of a compose file.",
		Example: "  berth bake\n  berth bake --print\n  berth bake -f compose.yaml web db\n  berth bake --set '*.platform=linux/arm64' --push",
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

func runBake(ctx context.Context, d *command.DockerCli, o *bakeOptions, names []string) error {
	if len(names) > 0 && strings.Contains(names[0], "://") {
		return errors.New("bake files at a URL are not supported: fetch the file, and name it with -f")
	}
	if len(names) == 0 {
		names = []string{"default"}
	}
	call, err := request.ParseCall(o.call)
	if err != nil {
		return err
	}
	files, err := o.read(d)
	if err != nil {
		return err
	}
	given, err := request.ParseMap(o.vars, true)
	if err != nil {
		return err
	}
	given["BAKE_CMD_CONTEXT"], given["BAKE_LOCAL_PLATFORM"] = "cwd://", runtime.GOOS+"/"+runtime.GOARCH
	config, err := bake.Parse(files, given, environment)
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
	if o.print {
		text, err := json.MarshalIndent(struct {
			Group  map[string]*bake.Group  `json:"group,omitempty"`
			Target map[string]*bake.Target `json:"target"`
		}{groups, targets}, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(d.Out(), string(text))
		return err
	}
	if err := o.ask(d, targets); err != nil {
		return err
	}
	return o.build(ctx, d, targets, call)
}

// environment is what variables of files may be set by.
func environment(name string) (string, bool) {
	if off := os.Getenv("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP"); off == "1" || off == "true" {
		return "", false
	}
	return os.LookupEnv(name)
}

func (o *bakeOptions) read(d *command.DockerCli) ([]bake.File, error) {
	names := o.files
	if list := os.Getenv("BUILDX_BAKE_FILE"); len(names) == 0 && list != "" {
		sep := os.Getenv("BUILDX_BAKE_FILE_SEPARATOR")
		if sep == "" {
			sep = string(os.PathListSeparator)
		}
		names = strings.Split(list, sep)
	}
	for i, n := range names {
		names[i] = strings.TrimPrefix(n, "cwd://")
	}
	return bake.ReadFiles(names, d.In())
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

func printList(d *command.DockerCli, c *bake.Config, kind string) error {
	kind, format, _ := strings.Cut(strings.TrimPrefix(kind, "type="), ",")
	asJSON := format == "format=json"
	w := tabwriter.NewWriter(d.Out(), 1, 8, 1, '\t', 0)
	var rows any
	switch kind {
	case "targets":
		type row struct {
			Name        string `json:"name"`
			Description string `json:"description,omitempty"`
			Group       bool   `json:"group,omitempty"`
		}
		var list []row
		for _, t := range c.Targets {
			list = append(list, row{t.Name, t.Description, false})
		}
		for _, g := range c.Groups {
			list = append(list, row{g.Name, g.Description, true})
		}
		slices.SortFunc(list, func(a, b row) int { return strings.Compare(a.Name, b.Name) })
		fmt.Fprintln(w, "TARGET\tDESCRIPTION")
		for _, r := range list {
			text := r.Description
			if r.Group && text == "" {
				text = strings.Join(groupTargets(c, r.Name), ", ")
			}
			fmt.Fprintf(w, "%s\t%s\n", r.Name, text)
		}
		rows = list
	case "variables":
		fmt.Fprintln(w, "VARIABLE\tTYPE\tVALUE\tDESCRIPTION")
		for _, v := range c.Variables {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", v.Name, v.Type, v.Value, v.Description)
		}
		rows = c.Variables
	default:
		return fmt.Errorf("invalid list type %q: targets or variables", kind)
	}
	if !asJSON {
		return w.Flush()
	}
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(d.Out(), string(text))
	return err
}

func groupTargets(c *bake.Config, name string) []string {
	for _, g := range c.Groups {
		if g.Name == name {
			return g.Targets
		}
	}
	return nil
}

// ask gets permission for what targets touch outside of the working directory.
func (o *bakeOptions) ask(d *command.DockerCli, targets map[string]*bake.Target) error {
	access, err := bake.ParseAccess(o.allow)
	if err != nil {
		return err
	}
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
func (o *bakeOptions) build(ctx context.Context, d *command.DockerCli, targets map[string]*bake.Target, call request.Call) error {
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
		return failure(d, fmt.Errorf("failed to build: %w", err), wave.failed)
	}
	printWarnings(d.Err(), show.warnings, mode, nil)
	return o.report(ctx, d, wave, names, call)
}

func (o *bakeOptions) report(ctx context.Context, d *command.DockerCli, w *wave, names []string, call request.Call) error {
	if o.metadata != "" {
		all := map[string]any{}
		for _, n := range names {
			a := w.turns[n].answer
			m := metadata(a.exporter)
			if a.called == nil {
				addRecord(ctx, d, w.conn, a, m)
			}
			all[n] = m
		}
		if len(w.show.warnings) > 0 && os.Getenv("BUILDX_METADATA_WARNINGS") == "1" {
			all["buildx.build.warnings"] = w.show.warnings
		}
		if err := writeMetadata(o.metadata, all); err != nil {
			return err
		}
	}
	code := 0
	for i, n := range names {
		t := w.turns[n]
		if t.spec.Call.Name == "" {
			continue
		}
		if i > 0 {
			fmt.Fprintln(d.Out())
		}
		fmt.Fprintf(d.Out(), "%s\n\n", n)
		t.spec.Call.Format, t.spec.Call.IgnoreStatus = call.Format, call.IgnoreStatus
		var status cli.StatusError
		if err := printCalled(d.Out(), t.spec, t.request, t.answer.called); errors.As(err, &status) {
			if status.Status != "" {
				fmt.Fprintln(d.Out(), status.Status)
			}
			code = max(code, status.StatusCode)
		} else if err != nil {
			return err
		}
	}
	if code != 0 {
		return cli.StatusError{StatusCode: code}
	}
	return nil
}
