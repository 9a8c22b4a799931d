package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/streams"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/base/fault"
	"berth/cli/runline"
	"berth/cli/tree"
)

// recreateOptions are the flags of recreate.
type recreateOptions struct {
	with, without []string
	image         string
	plan, keep    bool
	settle        time.Duration
	healthy       time.Duration
}

func newRecreate(d *command.DockerCli) *cobra.Command {
	var o recreateOptions
	cmd := &cobra.Command{
		Use:   "recreate [OPTIONS] CONTAINER [COMMAND [ARG...]]",
		Short: "Make a container again with changes, undone if that fails",
		Long: "Make a container again with some of its flags changed, what docker update cannot do: another image, port, volume,\n" +
			"variable, network. The new one is made beside the old one, which is stopped only then. If the new one cannot be\n" +
			"started, or ends or is unhealthy within the time that --settle gives, it is removed and the old one comes back.\n" +
			"Named and anonymous volumes are taken over; what the container wrote elsewhere is not.",
		Example: "  berth recreate --with '--memory 1g' --with '-p 8080:80' web\n  berth recreate --with image=nginx:1.29 --healthy 1m web\n" +
			"  berth recreate --without env=DEBUG --plan web",
		Args: cli.RequiresMinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := misplaced(cmd.Flags(), args); err != nil {
				return err
			}
			r, err := prepareRecreate(cmd.Context(), d, o, args)
			if err != nil {
				return err
			}
			defer r.tidy()
			if o.plan {
				r.print(d.Out())
				return nil
			}
			return r.apply(cmd.Context(), d.Err())
		},
		DisableFlagsInUseLine: true,
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringArrayVar(&o.with, "with", nil, "A `flag` of docker create that the new one gets, with its value; takes the place of the old one's")
	f.StringArrayVar(&o.without, "without", nil, "A `flag` that the new one does not get: all of them, or the one with a value, key or path")
	f.StringVar(&o.image, "image", "", "Another `image`")
	f.BoolVar(&o.plan, "plan", false, "Print what would change and what would be done, and do nothing")
	f.BoolVar(&o.keep, "keep", false, "Keep the old container, stopped and under another name")
	f.DurationVar(&o.settle, "settle", 2*time.Second, "How long the new one has to go on running before the old one is removed")
	f.DurationVar(&o.healthy, "healthy", 0, "Wait at most so long until the new one is healthy, and put the old one back if it is not")
	return cmd
}

// misplaced refuses a flag of recreate's own behind the container: there it would become the container's command.
func misplaced(flags *pflag.FlagSet, args []string) error {
	if len(args) < 2 || !strings.HasPrefix(args[1], "--") {
		return nil
	}
	name, _, _ := strings.Cut(args[1][2:], "=")
	if flags.Lookup(name) == nil {
		return nil
	}
	return fault.New(fault.Invalid, "--%s belongs before the container's name: what follows %s is its command", name, args[0])
}

// recreation is a container that is to be made again: what was decided before anything is done.
type recreation struct {
	d      command.Cli
	api    client.APIClient
	o      recreateOptions
	old    container.InspectResponse
	was    runline.Line
	is     runline.Line
	name   string // of both
	parked string // the old one's meanwhile
	made   string // id of the new one; "" there is none
	dir    string // of a file that the command line wants; "" none
}

func prepareRecreate(ctx context.Context, d command.Cli, o recreateOptions, args []string) (*recreation, error) {
	s, err := lookAt(ctx, d.Client(), args[0])
	if err != nil {
		return nil, err
	}
	r := &recreation{d: d, api: d.Client(), o: o, old: s.Container, was: runline.Of(s), name: strings.TrimPrefix(s.Container.Name, "/")}
	r.parked = r.name + "-before-" + s.Container.ID[:min(12, len(s.Container.ID))]
	if r.old.HostConfig.AutoRemove {
		return nil, fault.New(fault.Conflict, "container %s was made with --rm: once stopped it is gone and could not be put back; make it again by hand with what berth inspect --format run prints", r.name)
	}
	flags := tree.Only(d, "create").Flags()
	r.is = r.was
	r.is.Options = slices.Clone(r.was.Options)
	r.is.Without(runline.Option{Flag: "detach", Bare: true}) // for run only
	r.is.Without(runline.Option{Flag: "cidfile", Bare: true})
	r.keepVolumes(flags)
	if err := r.keepImage(ctx); err != nil {
		return nil, err
	}
	if err := r.change(flags, args[1:]); err != nil {
		return nil, err
	}
	return r, nil
}

// keepVolumes names the volumes that were made for the old one, so that the new one gets them and not new ones.
func (r *recreation) keepVolumes(flags *pflag.FlagSet) {
	for _, m := range r.old.Mounts {
		if m.Type != "volume" || m.Name == "" || slices.ContainsFunc(r.is.Options, func(o runline.Option) bool { return names(o, m.Name) }) {
			continue
		}
		value := m.Name + ":" + m.Destination
		if !m.RW {
			value += ":ro"
		}
		r.is.With(runline.Option{Flag: "volume", Value: value}, flags)
	}
}

// names reports whether a mount option names a volume.
func names(o runline.Option, volume string) bool {
	return o.Flag == "volume" && strings.HasPrefix(o.Value, volume+":") ||
		o.Flag == "mount" && slices.ContainsFunc(strings.Split(o.Value, ","), func(f string) bool { return f == "source="+volume || f == "src="+volume })
}

// keepImage has the same image used, also where its name means another one by now.
func (r *recreation) keepImage(ctx context.Context) error {
	if img, err := r.api.ImageInspect(ctx, r.is.Image); err == nil && img.ID == r.old.Image {
		return nil
	}
	if _, err := r.api.ImageInspect(ctx, r.old.Image); err != nil {
		return fault.In(err, "the image of container %s", r.name)
	}
	r.is.Image = r.old.Image
	return nil
}

// change applies what was asked.
func (r *recreation) change(flags *pflag.FlagSet, command []string) error {
	for _, text := range r.o.without {
		bare := !strings.ContainsAny(text, "= ")
		if bare { // without a value all are meant, whether the flag takes one or not
			text += "="
		}
		o, err := runline.Parse(text, flags)
		if err != nil {
			return err
		}
		o.Bare = bare
		if !r.is.Without(o) {
			return fault.New(fault.NotFound, "--without %s: container %s has no such flag; berth inspect --format run %s shows those it has", strings.TrimSuffix(text, "="), r.name, r.name)
		}
	}
	for _, text := range r.o.with {
		if name, image, ok := strings.Cut(strings.TrimLeft(text, "-"), "="); ok && name == "image" {
			r.is.Image = image
			continue
		}
		o, err := runline.Parse(text, flags)
		if err != nil {
			return err
		}
		if o.Flag == "name" {
			return fault.New(fault.Invalid, "--with %s: the new one has the old one's name; berth rename gives another", text)
		}
		r.is.With(o, flags)
	}
	if r.o.image != "" {
		r.is.Image = r.o.image
	}
	if len(command) > 0 {
		r.is.Args = command
	}
	return r.profile()
}

// profile writes the seccomp profile that inspect shows to a file, where the command line wants it.
func (r *recreation) profile() error {
	for i, o := range r.is.Options {
		if o.Flag != "security-opt" || o.Value != "seccomp="+runline.SeccompFile {
			continue
		}
		for _, s := range r.old.HostConfig.SecurityOpt {
			text, ok := strings.CutPrefix(s, "seccomp=")
			if !ok {
				continue
			}
			dir, err := os.MkdirTemp("", "berth-recreate-")
			if err != nil {
				return err
			}
			r.dir = dir
			path := filepath.Join(dir, runline.SeccompFile)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return err
			}
			r.is.Options[i].Value = "seccomp=" + path
		}
	}
	return nil
}

func (r *recreation) tidy() {
	if r.dir != "" {
		os.RemoveAll(r.dir)
	}
}

// print shows what changes and what is done.
func (r *recreation) print(w io.Writer) {
	fmt.Fprintf(w, "recreate %s (%.12s)\n", r.name, r.old.ID)
	lines := func(l runline.Line) []string {
		out := []string{"image " + l.Image}
		if len(l.Args) > 0 {
			words := make([]string, len(l.Args))
			for i, a := range l.Args {
				words[i] = runline.Quote(a)
			}
			out = append(out, "command "+strings.Join(words, " "))
		}
		for _, o := range l.Options {
			if o.Flag != "detach" && o.Flag != "cidfile" {
				out = append(out, o.String())
			}
		}
		return out
	}
	was, is := lines(r.was), lines(r.is)
	for _, l := range was {
		if !slices.Contains(is, l) {
			fmt.Fprintln(w, "  -", l)
		}
	}
	for _, l := range is {
		if !slices.Contains(was, l) {
			fmt.Fprintln(w, "  +", l)
		}
	}
	fmt.Fprintln(w, "steps")
	for _, s := range r.steps() {
		if !s.skip {
			fmt.Fprintln(w, " ", s.what)
		}
	}
}

// A move is one step with what puts it back.
type move struct {
	what string
	skip bool
	do   func(context.Context) error
	undo func(context.Context) error
}

// steps are what is done, in this order. The old one runs until the new one has been made.
func (r *recreation) steps() []move {
	running := r.old.State != nil && r.old.State.Running
	return []move{
		{what: fmt.Sprintf("rename %s to %s", r.name, r.parked), do: func(ctx context.Context) error {
			return r.rename(ctx, r.parked)
		}, undo: func(ctx context.Context) error { return r.rename(ctx, r.name) }},
		{what: "create " + r.name, do: r.create, undo: func(ctx context.Context) error {
			_, err := r.api.ContainerRemove(ctx, r.made, client.ContainerRemoveOptions{Force: true})
			return err
		}},
		{what: "stop " + r.parked, skip: !running, do: func(ctx context.Context) error {
			_, err := r.api.ContainerStop(ctx, r.old.ID, client.ContainerStopOptions{})
			return err
		}, undo: func(ctx context.Context) error {
			_, err := r.api.ContainerStart(ctx, r.old.ID, client.ContainerStartOptions{})
			return err
		}},
		{what: "start " + r.name + ", and see that it goes on", skip: !running, do: func(ctx context.Context) error {
			if _, err := r.api.ContainerStart(ctx, r.made, client.ContainerStartOptions{}); err != nil {
				return err
			}
			return r.watch(ctx)
		}}, // the removal of the new one ends it, too
		{what: "remove " + r.parked, skip: r.o.keep, do: func(ctx context.Context) error {
			_, err := r.api.ContainerRemove(ctx, r.old.ID, client.ContainerRemoveOptions{})
			return err
		}},
	}
}

func (r *recreation) rename(ctx context.Context, to string) error {
	_, err := r.api.ContainerRename(ctx, r.old.ID, client.ContainerRenameOptions{NewName: to})
	return err
}

// apply makes the steps. When one fails those before it are put back, the last one first, also when somebody has pressed ctrl-c.
func (r *recreation) apply(ctx context.Context, progress io.Writer) error {
	steps := r.steps()
	for i, s := range steps {
		if s.skip {
			continue
		}
		fmt.Fprintln(progress, s.what)
		err := s.do(ctx)
		if err == nil {
			continue
		}
		if i == len(steps)-1 { // the new one runs
			return fault.In(err, "the old container stays as %s", r.parked)
		}
		return r.putBack(context.WithoutCancel(ctx), steps[:i+1], err, progress)
	}
	fmt.Fprintln(r.d.Out(), r.name)
	return nil
}

// putBack undoes steps. The step that failed is among them: it may have been made in part.
func (r *recreation) putBack(ctx context.Context, steps []move, why error, progress io.Writer) error {
	fmt.Fprintln(progress, "putting the old one back:", why)
	// The new one has to be gone before the old one is started and gets its name: not the order of the steps.
	errs := []error{why}
	if len(steps) == 1 { // it was not renamed
		return why
	}
	if r.made != "" {
		errs = append(errs, steps[1].undo(ctx))
	}
	errs = append(errs, steps[0].undo(ctx))
	if len(steps) > 2 && !steps[2].skip {
		errs = append(errs, steps[2].undo(ctx))
	}
	if err := errors.Join(errs[1:]...); err != nil {
		return fault.In(errors.Join(errs...), "recreating %s failed, and the old container is not wholly back: look for %s", r.name, r.parked)
	}
	return fault.In(why, "recreating %s failed; the old container is back", r.name)
}

// create makes the new container with docker's own create. What no flag can say is taken over from the old one.
func (r *recreation) create(ctx context.Context) error {
	api := &creating{APIClient: r.api, old: &r.old, flags: map[string]bool{}, same: slices.Equal(r.was.Args, r.is.Args)}
	for _, o := range r.is.Options {
		if !slices.Contains(r.was.Options, o) {
			api.flags[o.Flag] = true
		}
	}
	c := tree.Only(quietly{Cli: r.d, api: api}, "create")
	extendUserns(c)
	c.SetArgs(r.is.Words())
	c.SilenceUsage, c.SilenceErrors = true, true
	err := c.ExecuteContext(ctx)
	r.made = api.made
	return err
}

// watch sees that the new container goes on.
func (r *recreation) watch(ctx context.Context) error {
	began := time.Now()
	for {
		c, err := r.api.ContainerInspect(ctx, r.made, client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		s := c.Container.State
		health := container.NoHealthcheck
		if s.Health != nil {
			health = s.Health.Status
		}
		switch {
		case s.Restarting, !s.Running && s.ExitCode != 0:
			return fault.New(fault.Conflict, "the new container ended with code %d after %v", s.ExitCode, time.Since(began).Round(100*time.Millisecond))
		case health == container.Unhealthy:
			return fault.New(fault.Conflict, "the new container is unhealthy: %s", lastOutput(s.Health))
		case !s.Running, health == container.Healthy:
			return nil
		case r.o.healthy > 0 && health == container.NoHealthcheck:
			return fault.New(fault.Invalid, "--healthy: the new container has no health check")
		case r.o.healthy > 0 && time.Since(began) > r.o.healthy:
			return fault.New(fault.Deadline, "the new container is not healthy after %v", r.o.healthy)
		case r.o.healthy == 0 && time.Since(began) >= r.o.settle:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func lastOutput(h *container.Health) string {
	if len(h.Log) == 0 {
		return ""
	}
	return strings.TrimSpace(h.Log[len(h.Log)-1].Output)
}

// quietly is the command line's surroundings for a command that runs inside another one: its own output is not the user's.
type quietly struct {
	command.Cli
	api client.APIClient
}

// Client is where the command's requests go.
func (q quietly) Client() client.APIClient { return q.api }

// Out swallows the id.
func (q quietly) Out() *streams.Out { return streams.NewOut(io.Discard) }

// creating passes one create request on, with what no flag can say taken over from the old container.
type creating struct {
	client.APIClient
	old   *container.InspectResponse
	flags map[string]bool // that were given anew
	same  bool            // so is the command
	made  string          // id of what was made
}

// ContainerCreate completes the request.
func (c *creating) ContainerCreate(ctx context.Context, o client.ContainerCreateOptions) (client.ContainerCreateResult, error) {
	was := c.old.Config
	o.Config.AttachStdin, o.Config.AttachStdout, o.Config.AttachStderr, o.Config.StdinOnce = was.AttachStdin, was.AttachStdout, was.AttachStderr, was.StdinOnce && o.Config.OpenStdin
	if c.same && !c.flags["entrypoint"] && len(o.Config.Entrypoint) == 1 && len(was.Entrypoint) > 1 {
		o.Config.Entrypoint, o.Config.Cmd = was.Entrypoint, was.Cmd
	}
	if h := o.Config.Healthcheck; h != nil && !c.flags["health-cmd"] && len(h.Test) > 0 && was.Healthcheck != nil && h.Test[0] == "CMD-SHELL" {
		h.Test = was.Healthcheck.Test
	}
	made, err := c.APIClient.ContainerCreate(ctx, o)
	c.made = made.ID
	return made, err
}
