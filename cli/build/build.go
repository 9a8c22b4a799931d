package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/opts"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/cli/build/request"
)

// Hooks are what the commands need of the command line around them.
type Hooks struct {
	// MustBeBerth refuses an engine that is none; command is what the user asked for.
	MustBeBerth func(ctx context.Context, command string) error
	// Version is of the program.
	Version string
}

// Docker marks commands that are Docker's, with its plugins, and Own the flags that we add to them: docs/commands.md lists what is ours.
const (
	Docker = "berth/docker"
	Own    = "berth/own"
)

// New is the build command. It goes by several names, below others too.
func New(d *command.DockerCli, h Hooks) *cobra.Command {
	o := &options{}
	c := &cobra.Command{
		Use:     "build [OPTIONS] PATH | URL | -",
		Short:   "Start a build",
		Long:    "Build an image from a Dockerfile and a context: a directory, a git or archive URL,\nor what comes on the standard input.",
		Example: examples,
		Args:    cli.ExactArgs(1),
		Aliases: []string{"b"},
		Annotations: map[string]string{
			Docker:         "buildx",
			"category-top": "4",
			"aliases":      "docker image build, docker build, docker buildx build, docker builder build",
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := knownBuilder(cmd, d); err != nil {
				return err
			}
			o.context = args[0]
			warnClassic(cmd.Flags(), d)
			return run(cmd.Context(), d, h, o)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		DisableFlagsInUseLine: true,
	}
	o.install(c.Flags())
	return c
}

const examples = `  berth build -t app .
  berth build -t example.com/app --platform linux/amd64,linux/arm64 --push .
  berth build --target test --progress plain .
  berth build -o out .
  berth build --secret id=token,src=token.txt .
  berth build --cache-to type=local,dest=/var/cache/app .
  berth build --plan .
  berth build --on-error shell .`

// options are the flags as given.
type options struct {
	context, file, target, iidfile, metadata, progress, call, sbom, provenance, network, cgroupParent, onError      string
	tags, args, labels, annotations, outputs, cacheFrom, cacheTo, secrets, ssh, attests, contexts, allow, platforms []string
	noCacheFilter, hosts, resources, legacy                                                                         []string
	quiet, noCache, pull, push, load, squash, plan, expand, printExpanded                                           bool
	shmSize                                                                                                         opts.MemBytes
	ulimits                                                                                                         *opts.UlimitOpt
	policy                                                                                                          policy
}

func (o *options) install(f *pflag.FlagSet) {
	f.StringSliceVar(&o.hosts, "add-host", nil, `Add a custom host-to-IP mapping (format: "host:ip")`)
	f.StringArrayVar(&o.allow, "allow", nil, `Allow extra privileged entitlement (e.g., "network.host", "security.insecure", "device")`)
	f.StringArrayVar(&o.annotations, "annotation", nil, "Add annotation to the image")
	f.StringArrayVar(&o.attests, "attest", nil, `Attestation parameters (format: "type=sbom,generator=image")`)
	f.StringArrayVar(&o.args, "build-arg", nil, "Set build-time variables")
	f.StringArrayVar(&o.contexts, "build-context", nil, "Additional build contexts (e.g., name=path)")
	f.StringArrayVar(&o.cacheFrom, "cache-from", nil, `External cache sources (e.g., "user/app:cache", "type=local,src=path/to/dir")`)
	f.StringArrayVar(&o.cacheTo, "cache-to", nil, `Cache export destinations (e.g., "user/app:cache", "type=local,dest=path/to/dir")`)
	f.StringVar(&o.call, "call", "build", `Set method for evaluating build ("check", "outline", "targets")`)
	f.Var(&check{&o.call}, "check", `Shorthand for "--call=check"`)
	f.Lookup("check").NoOptDefVal = "true"
	f.StringVar(&o.cgroupParent, "cgroup-parent", "", `Set the parent cgroup for the "RUN" instructions during build`)
	f.StringVarP(&o.file, "file", "f", "", `Name of the Dockerfile (default: "PATH/Dockerfile")`)
	f.StringVar(&o.iidfile, "iidfile", "", "Write the image ID to a file")
	f.StringArrayVar(&o.labels, "label", nil, "Set metadata for an image")
	f.BoolVar(&o.load, "load", false, `Shorthand for "--output=type=docker"`)
	f.StringVar(&o.network, "network", "default", `Set the networking mode for the "RUN" instructions during build`)
	f.StringArrayVar(&o.noCacheFilter, "no-cache-filter", nil, "Do not cache specified stages")
	f.StringArrayVarP(&o.outputs, "output", "o", nil, `Output destination (format: "type=local,dest=path")`)
	f.StringArrayVar(&o.platforms, "platform", defaultPlatforms(), "Set target platform for build")
	f.StringVar(&o.provenance, "provenance", "", `Shorthand for "--attest=type=provenance"`)
	f.Var(&o.policy, "policy", policyHelp)
	f.BoolVar(&o.push, "push", false, `Shorthand for "--output=type=registry,unpack=false"`)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	f.StringArrayVar(&o.resources, "resource", nil, `Resource limits for build containers (format: "memory=2g", "cpu-quota=50000")`)
	f.StringVar(&o.sbom, "sbom", "", `Shorthand for "--attest=type=sbom"`)
	f.StringArrayVar(&o.secrets, "secret", nil, `Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")`)
	f.Var(&o.shmSize, "shm-size", `Shared memory size for build containers`)
	f.StringArrayVar(&o.ssh, "ssh", nil, `SSH agent socket or keys to expose to the build (format: "default|<id>[=<socket>|<key>[,<key>]]")`)
	f.StringArrayVarP(&o.tags, "tag", "t", nil, `Image identifier (format: "[registry/]repository[:tag]")`)
	f.StringVar(&o.target, "target", "", "Set the target build stage to build")
	o.ulimits = opts.NewUlimitOpt(nil)
	f.Var(o.ulimits, "ulimit", "Ulimit options")
	installCommon(f, &o.progress, &o.noCache, &o.pull, &o.metadata)

	f.BoolVar(&o.expand, "expand", false, "Lower INCLUDE, IF and FOR in the Dockerfile, whatever its first line")
	f.StringVar(&o.onError, "on-error", "", `When a step fails ("shell" opens one in its state)`)
	f.BoolVar(&o.plan, "plan", false, "Print what would be built, what is cached and what not, and why")
	f.BoolVar(&o.printExpanded, "print-expanded", false, "Print the Dockerfile with INCLUDE, IF and FOR lowered, and build nothing")

	for _, name := range []string{"expand", "on-error", "plan", "print-expanded"} {
		_ = f.SetAnnotation(name, Own, nil)
	}

	// The classic builder's.
	for _, r := range [][3]string{
		{"memory", "m", "Memory limit"},
		{"memory-swap", "", `Swap limit equal to memory plus swap: "-1" to enable unlimited swap`},
		{"cpu-shares", "c", "CPU shares (relative weight)"},
		{"cpu-period", "", "Limit the CPU CFS (Completely Fair Scheduler) period"},
		{"cpu-quota", "", "Limit the CPU CFS (Completely Fair Scheduler) quota"},
		{"cpuset-cpus", "", `CPUs in which to allow execution ("0-3", "0,1")`},
		{"cpuset-mems", "", `MEMs in which to allow execution ("0-3", "0,1")`},
	} {
		f.VarP(&limit{key: r[0], all: &o.legacy}, r[0], r[1], r[2])
		_ = f.MarkHidden(r[0])
	}
	f.BoolVar(&o.squash, "squash", false, "Squash newly built layers into a single new layer")
	f.String("builder", "", "Override the configured builder instance")
	f.Bool("compress", false, "Compress the build context using gzip")
	f.String("isolation", "", "Container isolation technology")
	f.StringSlice("security-opt", nil, "Security options")
	f.Bool("rm", true, "Remove intermediate containers after a successful build")
	f.Bool("force-rm", false, "Always remove intermediate containers")
	f.Bool("disable-content-trust", true, "Skip image verification (deprecated)")
	f.StringVar(&o.call, "print", "", "Print result of information request (e.g., outline, targets)")
	for _, name := range []string{"squash", "builder", "compress", "isolation", "security-opt", "rm", "force-rm", "disable-content-trust", "print"} {
		_ = f.MarkHidden(name)
	}
	o.call = "build" // --print has set it to its own default
}

// installCommon adds the flags that build and bake share.
func installCommon(f *pflag.FlagSet, progress *string, noCache, pull *bool, metadata *string) {
	f.StringVar(metadata, "metadata-file", "", "Write build result metadata to a file")
	f.BoolVar(noCache, "no-cache", false, "Do not use cache when building the image")
	f.StringVar(progress, "progress", "auto", `Set type of progress output ("auto", "none", "plain", "quiet", "rawjson", "tty"). Use plain to show container output`)
	f.BoolVar(pull, "pull", false, "Always attempt to pull all referenced images")
}

func defaultPlatforms() []string {
	if v := os.Getenv("DOCKER_DEFAULT_PLATFORM"); v != "" {
		return []string{v}
	}
	return nil
}

// limit is a flag of the classic builder that --resource has taken the place of.
type limit struct {
	key string
	all *[]string
}

func (l *limit) String() string { return "" }
func (l *limit) Type() string   { return "string" }
func (l *limit) Set(v string) error {
	*l.all = append(*l.all, l.key+"="+v)
	return nil
}

// policy is --policy, of which there is only that there be none.
type policy bool

const policyHelp = `Source policy: none are evaluated here, "disabled=true" builds where one lies beside the Dockerfile`

func (p *policy) String() string { return "" }
func (p *policy) Type() string   { return "string" }
func (p *policy) Set(v string) error {
	k, on, _ := strings.Cut(v, "=")
	if off, err := strconv.ParseBool(on); k != "disabled" || err != nil || !off {
		return errors.New("source policies are not evaluated here: docker buildx does that, on this engine too; only disabled=true is taken")
	}
	*p = true
	return nil
}

// check is --check, another word for --call=check.
type check struct{ call *string }

func (c *check) String() string   { return "" }
func (c *check) Type() string     { return "bool" }
func (c *check) IsBoolFlag() bool { return true }
func (c *check) Set(v string) error {
	on, err := strconv.ParseBool(v)
	if err == nil && on {
		*c.call = "check"
	}
	return err
}

// warnClassic tells of flags that mean nothing any more.
func warnClassic(f *pflag.FlagSet, d *command.DockerCli) {
	for name, text := range map[string]string{
		"isolation":    "isolation flag is deprecated with BuildKit.",
		"security-opt": `security-opt flag is deprecated. "RUN --security=insecure" should be used with BuildKit.`,
	} {
		if f.Changed(name) {
			fmt.Fprintf(d.Err(), "WARNING: %s\n", text)
		}
	}
}

// spec reads the flags.
func (o *options) spec() (*request.Spec, error) {
	s := &request.Spec{
		Context: o.context, Dockerfile: o.file, Tags: o.tags, Target: o.target, Platforms: o.platforms, Annotations: o.annotations,
		SSH: request.ParseSSH(o.ssh), Push: o.push, Load: o.load, NoCache: o.noCache, NoCacheFilter: o.noCacheFilter, Pull: o.pull, Squash: o.squash,
		Network: o.network, ExtraHosts: o.hosts, ShmSize: o.shmSize.Value(), CgroupParent: o.cgroupParent, Allow: o.allow,
		Resources: append(append([]string{}, o.legacy...), o.resources...), Expand: o.expand, NoPolicy: bool(o.policy),
	}
	for _, u := range o.ulimits.GetList() {
		s.Ulimits = append(s.Ulimits, u.String())
	}
	var err error
	parse := func(read func() error) {
		if err == nil {
			err = read()
		}
	}
	parse(func() (e error) { s.Args, e = request.ParseMap(o.args, true); return })
	parse(func() (e error) { s.Labels, e = request.ParseMap(o.labels, false); return })
	parse(func() (e error) { s.Attests, e = request.ParseAttests(o.attests, o.provenance, o.sbom); return })
	parse(func() (e error) { s.Contexts, e = request.ParseContexts(o.contexts); return })
	parse(func() (e error) { s.Outputs, e = request.ParseOutputs(o.outputs); return })
	parse(func() (e error) { s.CacheFrom, e = request.ParseCaches(o.cacheFrom); return })
	parse(func() (e error) { s.CacheTo, e = request.ParseCaches(o.cacheTo); return })
	parse(func() (e error) { s.Secrets, e = request.ParseSecrets(o.secrets); return })
	parse(func() (e error) { s.Call, e = request.ParseCall(o.call); return })
	if err != nil {
		return nil, err
	}
	for _, out := range s.Outputs {
		if o.iidfile != "" && (out.Type == client.ExporterLocal || out.Type == client.ExporterTar) {
			return nil, errors.New("local and tar exporters are incompatible with image ID file")
		}
	}
	if o.onError != "" && o.onError != "shell" {
		return nil, fmt.Errorf("--on-error takes shell, not %q", o.onError)
	}
	if o.plan && s.Call.Name != "" {
		return nil, errors.New("--plan and --call cannot be used together")
	}
	return s, nil
}

// displayMode reads --progress and --quiet. Quiet means that the image's id is printed in the end; "none" that nothing is.
func displayMode(progress string, quiet *bool) (progressui.DisplayMode, error) {
	if v := os.Getenv("BUILDKIT_PROGRESS"); v != "" && progress == string(progressui.AutoMode) && !*quiet {
		progress = v // what was asked for in so many words wins
	}
	mode := progressui.DisplayMode(progress)
	switch progress {
	case "quiet":
		*quiet = true
	case "none":
		mode = progressui.QuietMode
	}
	if !*quiet {
		return mode, nil
	}
	if mode != progressui.AutoMode && mode != progressui.QuietMode {
		return "", fmt.Errorf("progress=%s and quiet cannot be used together", progress)
	}
	return progressui.QuietMode, nil
}

func run(ctx context.Context, d *command.DockerCli, h Hooks, o *options) error {
	spec, err := o.spec()
	if err != nil {
		return failure(d, err, nil)
	}
	mode, err := displayMode(o.progress, &o.quiet)
	if err != nil {
		return failure(d, err, nil)
	}
	if o.iidfile != "" { // what an earlier build left is not to be taken for this one's
		if err := os.Remove(o.iidfile); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("removing image ID file: %w", err)
		}
	}
	if o.printExpanded {
		return printExpanded(d, spec)
	}
	if o.plan && mode == progressui.AutoMode {
		mode = progressui.QuietMode // the plan is what was asked for
	}
	if o.plan {
		if err := h.MustBeBerth(ctx, "berth build --plan"); err != nil {
			return err
		}
	}
	c, err := connect(ctx, d)
	if err != nil {
		return failure(d, err, nil)
	}
	defer c.Close()
	r, err := spec.Prepare(ctx, c.engine(d), d.In(), passwords(d))
	if err != nil {
		return failure(d, fmt.Errorf("failed to build: %w", err), nil)
	}
	defer r.Release()
	t := turn{request: r, call: spec.Call, plan: o.plan}
	if o.onError == "shell" {
		sh, err := newStepShell(d, r, spec)
		if err != nil {
			return failure(d, err, nil)
		}
		t.failed = sh.open
	}
	show, err := openDisplay(screen(d), mode, builderName(d))
	if err != nil {
		return err
	}
	a, err := c.solve(ctx, t, show)
	if shown := show.close(); err == nil {
		err = shown
	}
	if err != nil {
		return failure(d, fmt.Errorf("failed to build: %w", err), r)
	}
	a.warnings = show.warnings
	return o.report(ctx, d, c, r, spec, a, mode)
}
