package bake

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"

	"berth/cli/build/request"
)

// A Remote is where bake files came from that are not of this machine: contexts that they name are parts of it.
type Remote struct {
	URL     string     // of a git repository; "" for an unpacked archive
	State   *llb.State // its files
	Secrets func(url string) []request.Secret
}

// here is how a place says that it is of the directory in which the command was called, wherever the file came from.
const here = "cwd://"

// Settle says where a target's contexts and Dockerfile are, now that it is known where its file came from; nil is this machine.
func (t *Target) Settle(from *Remote) error {
	if value(t.Context) == "-" {
		return errors.New("context from stdin not allowed in bake")
	}
	if value(t.Dockerfile) == "-" {
		return errors.New("dockerfile from stdin not allowed in bake")
	}
	for name, place := range t.Contexts {
		switch {
		case strings.HasPrefix(place, here):
			t.Contexts[name] = path.Clean(strings.TrimPrefix(place, here))
		case from == nil || strings.HasPrefix(place, "target:") || !isLocal(place) || request.IsRemote(place):
		case path.Clean(place) == "." && from.URL != "":
			t.Contexts[name] = from.URL
		default:
			if t.states == nil {
				t.states = map[string]llb.State{}
			}
			t.states[name] = from.part(place, fmt.Sprintf("set context %s to %s", name, place))
		}
	}
	if v, ok := strings.CutPrefix(value(t.Dockerfile), here); ok {
		abs, err := filepath.Abs(v)
		if err != nil {
			return err
		}
		t.Dockerfile = &abs
	}
	place := value(t.Context)
	switch local, own := strings.CutPrefix(place, here); {
	case own:
		place = path.Clean(local)
		if from != nil && !path.IsAbs(value(t.Dockerfile)) && !request.IsRemote(value(t.Dockerfile)) && t.DockerfileInline == nil {
			// It would be read from this machine, which is not what a file from elsewhere means.
			if _, err := os.Stat(filepath.Join(place, value(t.Dockerfile))); err == nil {
				return errors.New("reading a dockerfile for a remote build invocation is currently not supported")
			}
		}
	case request.IsRemote(place) || !isLocal(place):
	case from == nil:
		place = path.Clean(place)
	case path.Clean(place) == "." && from.URL != "":
		place = from.URL
	default:
		state := from.part(place, "set context to "+place)
		t.state = &state
		place = from.at(place)
	}
	t.Context = &place
	if from != nil && from.Secrets != nil && request.GitHost(place) == request.GitHost(from.URL) {
		t.auth = from.Secrets(from.URL)
	}
	return nil
}

// part is a directory of what is there. The engine keeps it inside.
func (r *Remote) part(dir, name string) llb.State {
	return llb.Scratch().File(llb.Copy(*r.State, dir, "/", &llb.CopyInfo{CopyDirContentsOnly: true}), llb.WithCustomName(name))
}

// at is the URL of a directory of a repository, for people.
func (r *Remote) at(dir string) string {
	ref, isGit, err := dfgitutil.ParseGitRef(r.URL)
	if err != nil || !isGit {
		return dir
	}
	base, fragment, _ := strings.Cut(r.URL, "#")
	version, _, _ := strings.Cut(fragment, ":")
	return base + "#" + version + ":" + path.Clean(path.Join(ref.SubDir, dir))
}
