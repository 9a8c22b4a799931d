package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"berth/base/fault"
)

// extendVolume adds to `volume` what only Berth has.
func extendVolume(c *cobra.Command, d *command.DockerCli) {
	c.AddCommand(newVolumeExport(d), newVolumeImport(d))
	for _, v := range []struct{ name, args, short, long, example string }{
		{"clone", "VOLUME NEW-NAME", "Make another volume with the same content", "Make another volume with the same content, options and labels. Where the file system has reflinks it takes no room\nuntil one of the two is written to.", "  berth volume clone data data-test"},
		{"snapshot", "VOLUME SNAPSHOT-NAME", "Keep a volume's content of this moment", "Keep a volume's content of this moment as a read-only volume of another name. To work with it, clone it.", "  berth volume snapshot data data-monday\n  berth volume clone data-monday data-again"},
		{"rename", "VOLUME NEW-NAME", "Give a volume another name", "Give a volume another name. No container may refer to it.", "  berth volume rename data data-old"},
	} {
		c.AddCommand(&cobra.Command{
			Use: v.name + " " + v.args, Short: v.short, Long: v.long, Example: v.example, Args: cli.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				path := volumePath(args[0], v.name)
				if err := newRemote(d.Client()).call(cmd.Context(), "berth volume "+v.name, http.MethodPost, path, map[string]string{"name": args[1]}, nil); err != nil {
					return err
				}
				fmt.Fprintln(d.Out(), args[1])
				return nil
			},
			DisableFlagsInUseLine: true,
		})
	}
	for _, sub := range c.Commands() {
		if sub.Name() != "prune" {
			continue
		}
		extendPrune(sub, d, "volumes", func(f client.Filters) client.Filters {
			if all := sub.Flag("all"); all != nil && all.Value.String() == "true" {
				f.Add("all", "true")
			}
			return f
		})
	}
}

func volumePath(name, verb string) string { return "/volumes/" + url.PathEscape(name) + "/" + verb }

func newVolumeExport(d *command.DockerCli) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "export [OPTIONS] VOLUME",
		Short: "Write a volume's content as a tar archive",
		Long: "Write a volume's content as a tar archive to standard output or a file: owners, modes, times, hard links, extended\n" +
			"attributes and the holes of sparse files are kept. A file is written under another name until it is whole.",
		Example: "  berth volume export data -o data.tar\n  berth volume export data | ssh other berth volume import data",
		Args:    cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output == "" && d.Out().IsTerminal() {
				return fault.New(fault.Invalid, "an archive is not for a terminal: give --output a file, or redirect the output")
			}
			r, err := newRemote(d.Client()).open(cmd.Context(), "berth volume export", http.MethodGet, volumePath(args[0], "export"), nil)
			if err != nil {
				return err
			}
			defer r.Close()
			if output == "" || output == "-" {
				_, err := io.Copy(d.Out(), r)
				return fault.Wrap(fault.Unavailable, err, "the archive is not whole")
			}
			return writeWhole(output, r)
		},
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file instead of standard output")
	return cmd
}

// writeWhole writes a file that is either as it was or all of r.
func writeWhole(path string, r io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = io.Copy(f, r)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the archive is not whole")
	}
	return os.Rename(f.Name(), path)
}

func newVolumeImport(d *command.DockerCli) *cobra.Command {
	return &cobra.Command{
		Use:   "import VOLUME [FILE|-]",
		Short: "Fill a volume from a tar archive",
		Long: "Fill a volume from a tar archive, plain or compressed, that is a file or comes from standard input. The volume must\n" +
			"be empty; one that is not there is made. If the archive is damaged, nothing stays.",
		Example: "  berth volume import data data.tar\n  zcat backup.tar.gz | berth volume import data",
		Args:    cli.RequiresRangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var from io.Reader = d.In()
			if len(args) == 2 && args[1] != "-" {
				f, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer f.Close()
				from = f
			} else if d.In().IsTerminal() {
				return fault.New(fault.Invalid, "an archive does not come from a terminal: name a file, or redirect the input")
			}
			r, err := newRemote(d.Client()).open(cmd.Context(), "berth volume import", http.MethodPost, volumePath(args[0], "import"), from)
			if err != nil {
				return err
			}
			defer r.Close()
			fmt.Fprintln(d.Out(), args[0])
			return nil
		},
		DisableFlagsInUseLine: true,
	}
}
