package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"berth/base/fault"
	"berth/cli/build"
	"berth/cli/progress"
	"berth/cli/table"
)

// extendImage adds to `image` what only Berth has.
func extendImage(c *cobra.Command, d *command.DockerCli) {
	replace(c, build.New(d, buildHooks(d)))
	c.AddCommand(newImageFsck(d), newImageSources(d), newImageCollect(d))
	for _, sub := range c.Commands() {
		switch sub.Name() {
		case "prune":
			extendPrune(sub, d, "images", func(f client.Filters) client.Filters {
				all := sub.Flag("all")
				return f.Add("dangling", strconv.FormatBool(all == nil || all.Value.String() != "true"))
			})
		case "ls":
			extendImageList(sub, d)
		}
		extend(sub, d)
	}
}

// fsckLine is one line of the engine's answer to POST /berth/v1/images/fsck.
type fsckLine struct {
	Status string
	Damage *fsckDamage
	Sum    *struct {
		Images, Names, Documents, Blobs, Layers, Damaged, Repaired int
		Bytes                                                      int64
	}
	Error string
}

type fsckDamage struct {
	Part, Subject, What, Source, Failed string
	Images                              []string
	Local, Tried, Repaired              bool
	Fetch                               int64
}

func newImageFsck(d *command.DockerCli) *cobra.Command {
	var repair bool
	cmd := &cobra.Command{
		Use:   "fsck [OPTIONS]",
		Short: "Verify all images, and repair what is damaged",
		Long: "Verify all images: every file of every layer, every document, and what the database says of them. Without --repair it\n" +
			"says what is wrong and what would repair it; with it, what is damaged is made from what is here, else fetched again\n" +
			"from where it came, and nothing else. Containers may run meanwhile. The exit code is 1 when something stays damaged.",
		Example: "  berth image fsck\n  berth image fsck --repair",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return imageFsck(cmd.Context(), d, "berth image fsck", repair)
		},
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "Repair what is damaged")
	return cmd
}

// imageFsck has the engine verify its images and prints what it says; command is what is told where the engine is no Berth.
func imageFsck(ctx context.Context, d *command.DockerCli, command string, repair bool) error {
	path := "/images/fsck"
	r := newRemote(d.Client())
	if repair {
		path += "?repair=1"
		auth, err := allCredentials(d)
		if err != nil {
			return err
		}
		r.header = http.Header{"X-Registry-Config": {auth}}
	}
	answer, err := r.open(ctx, command, http.MethodPost, path, nil)
	if err != nil {
		return err
	}
	defer answer.Close()
	return printFsck(d, answer, repair)
}

// allCredentials are those of all logins, as the engine reads them from one header.
func allCredentials(d *command.DockerCli) (string, error) {
	all, err := d.ConfigFile().GetAllCredentials()
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "read the credentials")
	}
	out := map[string]registry.AuthConfig{}
	for host, a := range all {
		out[host] = registry.AuthConfig{Username: a.Username, Password: a.Password, ServerAddress: a.ServerAddress, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
	}
	text, err := json.Marshal(out)
	return base64.URLEncoding.EncodeToString(text), err
}

// printFsck prints the lines as they come. A damage that is to be repaired is printed when that was tried.
func printFsck(d *command.DockerCli, lines io.Reader, repair bool) error {
	wait := progress.Start(d.Err(), "verifying images")
	defer wait.Stop()
	for in := json.NewDecoder(lines); ; {
		var l fsckLine
		if err := in.Decode(&l); err != nil {
			return fault.Wrap(fault.Unavailable, err, "the engine stopped before the check was over")
		}
		switch {
		case l.Error != "":
			return fault.New(fault.Internal, "Error response from daemon: %s", l.Error)
		case l.Status == "repairing":
			wait.Say("repairing images")
		case l.Damage != nil && (!repair || l.Damage.Tried):
			wait.Stop()
			printDamage(d.Out(), l.Damage)
		case l.Sum != nil:
			wait.Stop()
			s := l.Sum
			fmt.Fprintf(d.Out(), "%d images, %d names, %d documents, %d kept blobs, %d layers (%s read): %d damaged", s.Images, s.Names, s.Documents, s.Blobs, s.Layers, units.HumanSize(float64(s.Bytes)), s.Damaged)
			if repair && s.Damaged > 0 {
				fmt.Fprintf(d.Out(), ", %d repaired", s.Repaired)
			}
			fmt.Fprintln(d.Out())
			if s.Damaged > s.Repaired {
				return cli.StatusError{StatusCode: 1}
			}
			return nil
		}
	}
}

func printDamage(out io.Writer, x *fsckDamage) {
	fmt.Fprintf(out, "%s %s: %s\n", x.Part, x.Subject, x.What)
	if len(x.Images) > 0 {
		fmt.Fprintf(out, "  of %s\n", strings.Join(x.Images, ", "))
	}
	size := units.HumanSize(float64(x.Fetch))
	switch {
	case x.Repaired && x.Source != "" && !x.Local:
		fmt.Fprintf(out, "  repaired: fetched %s from %s\n", size, x.Source)
	case x.Repaired:
		fmt.Fprintln(out, "  repaired with what is here")
	case x.Tried:
		fmt.Fprintf(out, "  not repaired: %s\n", x.Failed)
	case x.Local:
		fmt.Fprintln(out, "  --repair makes it from what is here")
	case x.Source != "":
		fmt.Fprintf(out, "  --repair fetches %s from %s\n", size, x.Source)
	default:
		fmt.Fprintln(out, "  cannot be repaired: no source is known; remove the image and load or pull it again")
	}
}

// imageSources is the engine's answer about where an image's layers can be had again.
type imageSources struct {
	ID          string   `json:"id"`
	RepoTags    []string `json:"repoTags"`
	RepoDigests []string `json:"repoDigests"`
	Tagged      *time.Time
	LastUsed    *time.Time
	Layers      []struct {
		DiffID  string `json:"diffID"`
		Sources []struct {
			Repository string `json:"repository"`
			Digest     string `json:"digest"`
			MediaType  string `json:"mediaType"`
			Size       int64  `json:"size"`
		} `json:"sources"`
	} `json:"layers"`
}

func newImageSources(d *command.DockerCli) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "sources [OPTIONS] IMAGE",
		Short: "Show from where each layer of an image can be had again",
		Long: "Show from where each layer of an image can be had again in its compressed form. Layers are kept unpacked only; a push\n" +
			"takes the compressed form from its source, and rebuilds it, with another digest, where there is none any more.",
		Example: "  berth image sources nginx\n  berth image sources --json registry.example:5000/team/web:2",
		Args:    cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var s imageSources
			if err := newRemote(d.Client()).call(cmd.Context(), "berth image sources", http.MethodGet, "/images/"+escapeName(args[0])+"/sources", nil, &s); err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(d.Out())
				enc.SetIndent("", "    ")
				return enc.Encode(s)
			}
			_, width := d.Out().GetTtySize()
			printSources(d.Out(), s, int(width))
			return nil
		},
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print what the engine answered")
	return cmd
}

func printSources(out io.Writer, s imageSources, width int) {
	fmt.Fprintf(out, "image %s\n", s.ID)
	for _, n := range append(s.RepoTags, s.RepoDigests...) {
		fmt.Fprintf(out, "  %s\n", n)
	}
	if s.Tagged != nil {
		fmt.Fprintf(out, "  named %s ago\n", units.HumanDuration(time.Since(*s.Tagged)))
	}
	if s.LastUsed != nil {
		fmt.Fprintf(out, "  last used %s ago\n", units.HumanDuration(time.Since(*s.LastUsed)))
	}
	fmt.Fprintln(out)
	rows := [][]string{{"LAYER", "BLOB", "SIZE", "KIND", "AT"}}
	for _, l := range s.Layers {
		layer := shortDigest(l.DiffID)
		if len(l.Sources) == 0 {
			rows = append(rows, []string{layer, "", "", "", "nowhere: it would be rebuilt"})
		}
		for i := len(l.Sources) - 1; i >= 0; i-- {
			src := l.Sources[i]
			rows = append(rows, []string{layer, shortDigest(src.Digest), units.HumanSize(float64(src.Size)), compressionOf(src.MediaType), src.Repository})
			layer = ""
		}
	}
	table.Print(out, rows, width)
}

func shortDigest(d string) string {
	_, hex, ok := strings.Cut(d, ":")
	if !ok {
		hex = d
	}
	return hex[:min(12, len(hex))]
}

func compressionOf(mediaType string) string {
	for _, kind := range []string{"gzip", "zstd"} {
		if strings.HasSuffix(mediaType, kind) {
			return kind
		}
	}
	return "tar"
}
