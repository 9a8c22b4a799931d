package cli

import (
	"fmt"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"berth/base/fault"
	"berth/cli/tree"
)

const (
	// defaultToolbox is the image whose tools debug brings.
	defaultToolbox = "busybox"
	// targetRoot is where the toolbox sees the files of the container's first process.
	targetRoot = "/proc/1/root"
)

func newDebug(d *command.DockerCli) *cobra.Command {
	var image, user string
	cmd := &cobra.Command{
		Use:   "debug [OPTIONS] CONTAINER [COMMAND [ARG...]]",
		Short: "Run a shell with tools beside a container that has none",
		Long: "Run a shell, or a command, from a toolbox image in the namespaces of a running container: its processes, network,\n" +
			"host name and, where it shares them, its semaphores and shared memory. The container's files, with its volumes, are at " + targetRoot + ",\n" +
			"where the shell begins. Nothing is put into the container: it works with an image of one file, and with\n" +
			"a read-only root file system. The toolbox is a container of its own, which is removed at its end.",
		Example: "  berth debug web\n  berth debug --image nicolaka/netshoot web\n  berth debug web wget -qO- http://127.0.0.1:8080/\n  berth debug web cat " + targetRoot + "/etc/app.conf",
		Args:    cli.RequiresMinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := d.Client().ContainerInspect(cmd.Context(), args[0], client.ContainerInspectOptions{})
			if err != nil {
				return err
			}
			if c.Container.State.Paused {
				return fault.New(fault.Conflict, "container %s is paused: its processes show, but none of them answers; berth unpause %[1]s first", args[0])
			}
			if !c.Container.State.Running || c.Container.State.Restarting {
				return fault.New(fault.Conflict, "container %s is not running: there are no namespaces to join. berth explain %[1]s says why it ended; berth cp and berth export give its files; berth commit makes an image of them to run a shell in", args[0])
			}
			if mode := c.Container.HostConfig.PidMode; mode.IsContainer() {
				fmt.Fprintf(d.Err(), "berth debug: %s shares the processes of another container: the files at %s are that one's (%.12s)\n", args[0], targetRoot, mode.Container())
			}
			run := tree.Only(d, "run")
			extend(run, d)
			run.SetArgs(toolbox(&c.Container, image, user, d.In().IsTerminal() && d.Out().IsTerminal(), args[1:]))
			run.SilenceUsage, run.SilenceErrors = true, true
			return run.ExecuteContext(cmd.Context())
		},
		DisableFlagsInUseLine: true,
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&image, "image", defaultToolbox, "The toolbox: an `image` with a shell")
	f.StringVarP(&user, "user", "u", "0", "Who runs it: a `user` of the toolbox image, or a number")
	return cmd
}

// enter is what the toolbox's shell does first. No working directory may lead through /proc/1/root, so a shell has to go there; it may look
// at another process's files by CAP_SYS_PTRACE.
const enter = `cd "$0" 2>/dev/null || echo "berth debug: the files of the container cannot be reached at $0" >&2; exec "$@"`

// toolbox gives the arguments of run for a toolbox beside a container.
func toolbox(c *container.InspectResponse, image, user string, tty bool, command []string) []string {
	self, root := "container:"+c.ID, targetRoot
	args := []string{"--rm", "--interactive", "--user=" + user, "--entrypoint=sh", "--no-healthcheck", "--cap-add=SYS_PTRACE", "--label=berth.debug=" + c.ID}
	if tty {
		args = append(args, "--tty")
	}
	if len(command) == 0 {
		args = append(args, "--env=PS1="+strings.TrimPrefix(c.Name, "/")+":\\w\\$ ")
		command = []string{"sh"}
	}
	h := c.HostConfig
	if h.PidMode.IsHost() { // the host's first process is another one
		root = fmt.Sprintf("/proc/%d/root", c.State.Pid)
	}
	join := func(flag, mode string) {
		if mode == "host" {
			args = append(args, "--"+flag+"=host")
			return
		}
		args = append(args, "--"+flag+"="+self)
	}
	join("pid", string(h.PidMode))
	if mode := string(h.NetworkMode); mode == "host" {
		args = append(args, "--network=host")
	} else {
		args = append(args, "--network="+self)
	}
	if h.IpcMode.IsShareable() || h.IpcMode.IsHost() || h.IpcMode.IsContainer() {
		join("ipc", string(h.IpcMode))
	}
	if mode := string(h.UsernsMode); mode != "" {
		if mode != "host" {
			mode = self
		}
		args = append(args, "--userns="+mode)
	}
	if h.Privileged {
		args = append(args, "--privileged")
	}
	for _, cap := range h.CapAdd {
		args = append(args, "--cap-add="+cap)
	}
	return append(append(args, image, "-c", enter, root), command...)
}
