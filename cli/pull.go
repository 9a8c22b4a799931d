package cli

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"berth/base/fault"
)

// pullHeader asks the engine for more of a pull than Docker's API can.
const pullHeader = "Berth-Pull"

// Flags of pull that only Berth has; their names are also what the header says.
const (
	flagLazy  = "lazy"
	flagStale = "stale-if-error"
)

// extendPull adds --plan, --lazy and --stale-if-error to pull.
func extendPull(c *cobra.Command, d *command.DockerCli) {
	var plan bool
	c.Flags().BoolVar(&plan, "plan", false, "Say what would be pulled from where, and pull nothing")
	c.Flags().Bool(flagLazy, false, "Do not wait for layers that can be served before they are here (eStargz, zstd:chunked)")
	c.Flags().Bool(flagStale, false, "Where the registry cannot be asked, take the copy that is here and say how old it is")
	c.Example = "  berth pull nginx:1.27\n  berth pull --plan --platform linux/arm64 registry.example:5000/team/web:2\n" +
		"  berth pull --lazy registry.example:5000/big"
	pull := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !plan {
			if err := wantPull(cmd, d, flagLazy, flagStale); err != nil {
				return err
			}
			return pull(cmd, args)
		}
		name, err := transferName(cmd, args[0])
		if err != nil {
			return err
		}
		q := url.Values{"fromImage": {name.Name()}}
		if t, ok := name.(reference.Tagged); ok {
			q.Set("tag", t.Tag())
		}
		if t, ok := name.(reference.Digested); ok {
			q.Set("tag", t.Digest().String())
		}
		if p := cmd.Flag("platform").Value.String(); p != "" {
			q.Set("platform", p)
		}
		for _, f := range []string{flagLazy, flagStale} {
			if cmd.Flag(f).Value.String() == "true" {
				q.Set(f, "1")
			}
		}
		return printTransferPlan(cmd, d, name, "/images/create?"+q.Encode())
	}
}

// extendPush adds --plan to push.
func extendPush(c *cobra.Command, d *command.DockerCli) {
	var plan bool
	c.Flags().BoolVar(&plan, "plan", false, "Say what would be pushed and how, and push nothing")
	c.Example = "  berth push registry.example:5000/team/web:2\n  berth push --plan registry.example:5000/team/web:2"
	push := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !plan {
			return push(cmd, args)
		}
		name, err := transferName(cmd, args[0])
		if err != nil {
			return err
		}
		q := url.Values{}
		if t, ok := name.(reference.Tagged); ok {
			q.Set("tag", t.Tag())
		}
		if p := cmd.Flag("platform").Value.String(); p != "" {
			parsed, err := platforms.Parse(p)
			if err != nil {
				return err
			}
			text, err := json.Marshal(parsed)
			if err != nil {
				return err
			}
			q.Set("platform", string(text))
		}
		return printTransferPlan(cmd, d, name, "/images/"+escapeName(name.Name())+"/push?"+q.Encode())
	}
}

// transferName reads the name as pull and push do: without a tag it means :latest, and with --all-tags there must be none.
func transferName(cmd *cobra.Command, text string) (reference.Named, error) {
	name, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return nil, err
	}
	if cmd.Flag("all-tags").Value.String() != "true" {
		return reference.TagNameOnly(name), nil
	}
	if !reference.IsNameOnly(name) {
		return nil, fault.New(fault.Invalid, "tag can't be used with --all-tags/-a")
	}
	return name, nil
}

// escapeName escapes what stands between the slashes of a repository's name: the engine takes its slashes as they are.
func escapeName(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// printTransferPlan prints the engine's plan of a pull or push, made with the credentials that the command would use.
func printTransferPlan(cmd *cobra.Command, d *command.DockerCli, name reference.Named, path string) error {
	auth, err := command.RetrieveAuthTokenFromImage(d.ConfigFile(), name.String())
	if err != nil {
		return err
	}
	r := newRemote(d.Client())
	r.header = http.Header{registry.AuthHeader: {auth}}
	out, err := r.open(cmd.Context(), "berth "+cmd.Name()+" --plan", http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = io.Copy(d.Out(), out)
	return err
}

// extendPullMode teaches run and create the mode "lazy" of --pull: missing, and not waited for.
func extendPullMode(c *cobra.Command, d *command.DockerCli) {
	mode := c.Flag("pull")
	mode.Usage = strings.Replace(mode.Usage, `"missing"`, `"missing", "`+flagLazy+`"`, 1)
	run := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if mode.Value.String() != flagLazy {
			return run(cmd, args)
		}
		if err := mode.Value.Set("missing"); err != nil {
			return err
		}
		if err := askForPull(cmd, d, "--pull="+flagLazy, flagLazy); err != nil {
			return cli.StatusError{StatusCode: 125, Status: "docker: " + err.Error()}
		}
		return run(cmd, args)
	}
}

// wantPull asks for what those of flags that are set mean.
func wantPull(cmd *cobra.Command, d *command.DockerCli, flags ...string) error {
	var words []string
	for _, f := range flags {
		if cmd.Flag(f).Value.String() == "true" {
			words = append(words, f)
		}
	}
	if len(words) == 0 {
		return nil
	}
	return askForPull(cmd, d, "--"+words[0], words...)
}

// askForPull lets every pull of this command ask for words. Docker's client cannot, so another one does the pulling, over the same way to
// the engine.
func askForPull(cmd *cobra.Command, d *command.DockerCli, flag string, words ...string) error {
	engine := d.Client()
	if err := newRemote(engine).mustBeBerth(cmd.Context(), "berth "+cmd.Name()+" "+flag); err != nil {
		return err
	}
	headers := maps.Clone(d.ConfigFile().HTTPHeaders)
	if headers == nil {
		headers = map[string]string{}
	}
	headers[pullHeader] = strings.Join(words, ",")
	dial := engine.Dialer()
	puller, err := client.New(
		client.WithHost("tcp://berth"),
		client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }),
		client.WithAPIVersionFromEnv(),
		client.WithHTTPHeaders(headers),
	)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "make a client that pulls")
	}
	return command.WithAPIClient(pullingClient{engine, puller})(d)
}

// A pullingClient is a client whose pulls another one does.
type pullingClient struct {
	client.APIClient
	puller *client.Client
}

// ImagePull pulls.
func (p pullingClient) ImagePull(ctx context.Context, name string, o client.ImagePullOptions) (client.ImagePullResponse, error) {
	return p.puller.ImagePull(ctx, name, o)
}

// extendSearch says what search can: the library's help only knows the Hub.
func extendSearch(c *cobra.Command) {
	c.Short = "Search a registry for images"
	c.Long = "Search a registry for images: Docker Hub, and mirrors of it that can search, or the registry whose host stands\nbefore the term."
	c.Example = "  berth search tomcat\n  berth search --filter is-official=true --limit 5 web\n  berth search registry.example:5000/web"
}
