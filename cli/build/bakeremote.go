package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerui"
	gateway "github.com/moby/buildkit/frontend/gateway/client"

	"berth/cli/build/bake"
	"berth/cli/build/request"
)

// maxDefinition is how large a bake file from elsewhere may be.
const maxDefinition = 2 << 20

// bakeArguments takes the URL of bake files, and the context that goes with it, from a command line's words.
func bakeArguments(words []string) (url, commandContext string, names []string) {
	commandContext, names = "cwd://", words
	if len(names) > 0 && request.IsRemote(names[0]) {
		url, names = names[0], names[1:]
		if len(names) > 0 && request.IsRemote(names[0]) {
			commandContext, names = names[0], names[1:]
		}
	}
	if len(names) == 0 {
		names = []string{"default"}
	}
	return url, commandContext, names
}

// remoteFiles reads bake files at a URL by way of the engine: one file, or those of a git repository or archive, which is then what their contexts are
// parts of. Without names those of bake's usual names are read.
func (c *conn) remoteFiles(ctx context.Context, url string, names []string, show *display) ([]bake.File, *bake.Remote, error) {
	opt := client.SolveOpt{Internal: true}
	state, isGit, err := dockerui.DetectGitContext(url, nil)
	if isGit && err != nil {
		return nil, nil, err
	}
	httpName := ""
	if isGit {
		if opt.Session, err = request.GitSession(url, os.Getenv("BUILDX_BAKE_GIT_SSH"), bakeGitSecrets(url)); err != nil {
			return nil, nil, err
		}
	} else {
		var isHTTP bool
		if state, httpName, isHTTP = dockerui.DetectHTTPContext(url); !isHTTP {
			return nil, nil, fmt.Errorf("%s is no URL of bake files", url)
		}
	}
	from := &bake.Remote{URL: url, State: state, Secrets: bakeGitSecrets}
	var files []bake.File
	_, err = c.Build(ctx, opt, product, func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		ref, err := solved(ctx, g, *state)
		if err != nil {
			return nil, err
		}
		if httpName == "" {
			files, err = definitions(ctx, ref, names)
			return nil, err
		}
		head, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: httpName, Range: &gateway.FileRange{Length: 1024}})
		if err != nil {
			return nil, err
		}
		if !request.IsArchive(head) { // the file itself; what it speaks of is here
			from = nil
			text, err := definition(ctx, ref, httpName)
			files = []bake.File{{Name: url, Text: text}}
			return nil, err
		}
		unpacked := llb.Scratch().File(llb.Copy(*state, httpName, "/", &llb.CopyInfo{AttemptUnpack: true}))
		from.URL, from.State = "", &unpacked
		if ref, err = solved(ctx, g, unpacked); err != nil {
			return nil, err
		}
		files, err = definitions(ctx, ref, names)
		return nil, err
	}, show.writer(""))
	return files, from, err
}

// solved gives the files of a state.
func solved(ctx context.Context, g gateway.Client, state llb.State) (gateway.Reference, error) {
	def, err := state.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	res, err := g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
	if err != nil {
		return nil, err
	}
	return res.SingleRef()
}

// definitions reads bake files of a tree.
func definitions(ctx context.Context, ref gateway.Reference, names []string) (files []bake.File, err error) {
	optional := len(names) == 0
	if optional {
		names = bake.DefaultNames()
	}
	for _, n := range names {
		if _, err := ref.StatFile(ctx, gateway.StatRequest{Path: n}); err != nil {
			if optional {
				continue
			}
			return nil, err
		}
		text, err := definition(ctx, ref, n)
		if err != nil {
			return nil, err
		}
		files = append(files, bake.File{Name: n, Text: text})
	}
	if len(files) == 0 {
		return nil, errors.New("couldn't find a bake definition")
	}
	return files, nil
}

func definition(ctx context.Context, ref gateway.Reference, name string) ([]byte, error) {
	st, err := ref.StatFile(ctx, gateway.StatRequest{Path: name})
	if err != nil {
		return nil, err
	}
	if st.Size > maxDefinition {
		return nil, fmt.Errorf("the bake definition %s is bigger than %s", name, units.BytesSize(maxDefinition))
	}
	return ref.ReadFile(ctx, gateway.ReadRequest{Filename: name})
}

// bakeGitSecrets are what the environment has to reach the git repositories of url's host.
func bakeGitSecrets(url string) (secrets []request.Secret) {
	host := request.GitHost(url)
	if host == "" {
		return nil
	}
	for _, s := range [][2]string{{llb.GitAuthTokenKey, "BUILDX_BAKE_GIT_AUTH_TOKEN"}, {llb.GitAuthHeaderKey, "BUILDX_BAKE_GIT_AUTH_HEADER"}} {
		if _, ok := os.LookupEnv(s[1]); ok {
			secrets = append(secrets, request.Secret{ID: s[0] + "." + host, Env: s[1]})
		}
	}
	return secrets
}

// apart gives which of -f's files are here, and which at the URL.
func apart(names []string, url string) (here, there []string) {
	for _, n := range names {
		local, own := strings.CutPrefix(n, "cwd://")
		if own || url == "" {
			here = append(here, local)
		} else {
			there = append(there, n)
		}
	}
	return here, slices.Clip(there)
}
