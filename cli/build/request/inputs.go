package request

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/ociindex"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/moby/buildkit/util/gitutil"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"

	"berth/cli/build/expand"
)

// A dockerfile is where the Dockerfile comes from: text that we have, or a file in a directory of ours, or (both empty) the remote context.
type dockerfile struct {
	text []byte
	dir  string
	name string
}

// addInputs adds contexts and the Dockerfile.
func (s *Spec) addInputs(ctx context.Context, r *Request, e Engine, in io.Reader) error {
	if s.Context == "" {
		return errors.New(`please specify build context (e.g. "." for the current directory)`)
	}
	if s.Context == "-" && s.Dockerfile == "-" {
		return errors.New("invalid argument: can't use stdin for both build context and dockerfile")
	}
	d := dockerfile{name: "Dockerfile"}
	r.Name = s.Dockerfile
	attrs := r.Solve.FrontendAttrs
	switch {
	case s.ContextState != nil:
		r.input("context", *s.ContextState)
		r.input("dockerfile", *s.ContextState)
		if s.Dockerfile != "" {
			d.name = s.Dockerfile
		}
		if filepath.IsAbs(s.Dockerfile) {
			d.dir, d.name = filepath.Dir(s.Dockerfile), filepath.Base(s.Dockerfile)
			delete(r.Solve.FrontendInputs, "dockerfile")
		}
	case s.Context == "-":
		text, err := s.fromStdin(r, in)
		if err != nil {
			return err
		}
		d.text = text
		if s.Dockerfile != "" {
			d.name = s.Dockerfile
		}
	case isDir(s.Context):
		if err := r.mount("context", s.Context); err != nil {
			return err
		}
		r.Solve.SharedKey = sharedKey(s.Context)
		attrs["vcs:localdir:context"], _, _ = strings.Cut(r.Solve.SharedKey, ":") // what the history calls the build
		d.dir = s.Context
		if s.Dockerfile != "" {
			d.dir, d.name = filepath.Dir(s.Dockerfile), filepath.Base(s.Dockerfile)
		} else {
			r.Name = filepath.Join(s.Context, "Dockerfile")
		}
	case IsRemote(s.Context):
		attrs["context"] = s.Context
		addGitCapability(attrs, s.Context, "")
		if s.Dockerfile != "" {
			d.name = s.Dockerfile
		}
		if filepath.IsAbs(s.Dockerfile) {
			d.dir, d.name = filepath.Dir(s.Dockerfile), filepath.Base(s.Dockerfile)
		}
	default:
		return fmt.Errorf("unable to prepare context: path %q not found", s.Context)
	}

	switch {
	case s.DockerfileInline != "":
		d, r.Name = dockerfile{text: []byte(s.DockerfileInline), dir: d.dir}, "inline"
	case s.Dockerfile == "-":
		text, err := io.ReadAll(in)
		if err != nil {
			return fmt.Errorf("read the Dockerfile from stdin: %w", err)
		}
		d, r.Name = dockerfile{text: text, dir: d.dir}, "stdin"
		if isDir(s.Context) {
			d.dir = s.Context
		}
	case isHTTP(s.Dockerfile):
		text, err := e.Fetch(ctx, s.Dockerfile)
		if err != nil {
			return err
		}
		d = dockerfile{text: text}
	}
	if err := s.addDockerfile(r, d); err != nil {
		return err
	}
	return s.addContexts(r)
}

// fromStdin takes the standard input as the context, when it is an archive, else as the Dockerfile, which it gives.
func (s *Spec) fromStdin(r *Request, in io.Reader) ([]byte, error) {
	buffered := bufio.NewReaderSize(in, 4096)
	head, err := buffered.Peek(1024)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("failed to peek context header from STDIN: %w", err)
	}
	if IsArchive(head) {
		up := uploadprovider.New()
		r.Solve.FrontendAttrs["context"] = up.Add(io.NopCloser(buffered))
		r.Solve.Session = append(r.Solve.Session, up)
		return nil, nil
	}
	if s.Dockerfile != "" {
		return nil, errors.New("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
	}
	text, err := io.ReadAll(buffered)
	if err != nil {
		return nil, err
	}
	empty, err := r.tempDir("context")
	if err != nil {
		return nil, err
	}
	r.Name = "stdin"
	return text, r.mount("context", empty)
}

// IsArchive looks at a file's first bytes.
func IsArchive(head []byte) bool {
	for _, magic := range []string{"BZh", "\x1f\x8b\x08", "\xfd7zXZ\x00"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil
}

// addDockerfile sends the Dockerfile from where it is, or, where it had to be expanded or is no file, from a directory of its own.
func (s *Spec) addDockerfile(r *Request, d dockerfile) error {
	attrs := r.Solve.FrontendAttrs
	if d.dir != "" && d.text == nil {
		d.name = lowerCase(d.dir, d.name)
	}
	if err := s.refusePolicy(d); err != nil {
		return err
	}
	text := d.text
	if text == nil && d.dir != "" {
		// What cannot be read is the engine's to complain about, in the words that everybody knows.
		text, _ = os.ReadFile(filepath.Join(d.dir, d.name))
	}
	if text != nil && (s.Expand || expand.Wanted(text)) {
		src := expand.Source{Name: r.Name, Text: text, Args: s.Args}
		src.Root, src.Dir = ExpandRoot(s)
		result, err := expand.Expand(src)
		if err != nil {
			return err
		}
		r.Expanded = result
		d.text = result.Text
	}
	if d.text == nil {
		attrs["filename"], r.Sent = d.name, d.name
		if d.dir == "" {
			return nil
		}
		return r.mount("dockerfile", d.dir)
	}
	dir, err := r.tempDir("dockerfile")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), d.text, 0o600); err != nil {
		return err
	}
	if d.dir != "" && d.name != "" { // the ignore file of this one Dockerfile comes along
		rules, err := os.ReadFile(filepath.Join(d.dir, d.name+".dockerignore"))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "Dockerfile.dockerignore"), rules, 0o600)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	delete(r.Solve.FrontendInputs, "dockerfile")
	attrs["dockerfilekey"] = "dockerfile"
	attrs["filename"], r.Sent = "Dockerfile", "Dockerfile"
	return r.mount("dockerfile", dir)
}

// refusePolicy refuses a Dockerfile with a source policy beside it: buildx would hold the build's sources against it.
func (s *Spec) refusePolicy(d dockerfile) error {
	if s.NoPolicy || d.dir == "" || d.name == "" {
		return nil
	}
	path := filepath.Join(d.dir, d.name+".rego")
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return fmt.Errorf("%s is a source policy, which is not evaluated here: docker buildx does that, on this engine too; --policy disabled=true builds without it", path)
}

// ExpandRoot gives what an INCLUDE of s's Dockerfile may read, and where in it the Dockerfile stands: the context, where that is a directory here and
// the Dockerfile is in it, else the Dockerfile's own directory.
func ExpandRoot(s *Spec) (root, dir string) {
	dir = "."
	switch {
	case s.Dockerfile != "" && s.Dockerfile != "-" && !isHTTP(s.Dockerfile) && s.DockerfileInline == "":
		dir = filepath.Dir(s.Dockerfile)
	case isDir(s.Context):
		dir = s.Context
	}
	if !isDir(s.Context) {
		return dir, dir
	}
	root, err := filepath.Abs(s.Context)
	if err != nil {
		return dir, dir
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return dir, dir
	}
	if rel, err := filepath.Rel(root, abs); err != nil || !filepath.IsLocal(rel) {
		return dir, dir
	}
	return root, abs
}

// lowerCase is "dockerfile" where dir has that and no Dockerfile: people on case-blind file systems have such.
func lowerCase(dir, name string) string {
	if name != "Dockerfile" {
		return name
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return name
	}
	lower := false
	for _, e := range entries {
		if e.Name() == name {
			return name
		}
		lower = lower || e.Name() == "dockerfile"
	}
	if lower {
		return "dockerfile"
	}
	return name
}

// addContexts adds the named contexts.
func (s *Spec) addContexts(r *Request) error {
	attrs := r.Solve.FrontendAttrs
	for name, state := range s.ContextStates {
		addCapability(attrs, "moby.buildkit.frontend.contexts+forward")
		attrs["context:"+name] = "input:" + name
		r.input(name, state)
	}
	for name, place := range s.Contexts {
		addCapability(attrs, "moby.buildkit.frontend.contexts+forward")
		switch {
		case strings.HasPrefix(place, "docker-image://"), strings.HasPrefix(place, "target:"), IsRemote(place):
			attrs["context:"+name] = place
			addGitCapability(attrs, place, "+forward")
		case strings.HasPrefix(place, "oci-layout://"):
			ref, err := r.layout(place)
			if err != nil {
				return err
			}
			attrs["context:"+name] = ref
		default:
			fi, err := os.Stat(place)
			if err != nil {
				return fmt.Errorf("failed to get build context %v: %w", name, err)
			}
			if !fi.IsDir() {
				return fmt.Errorf("failed to get build context path %v: %w", place, syscall.ENOTDIR)
			}
			key := name
			if key == "context" || key == "dockerfile" {
				key = "_" + key
			}
			if err := r.mount(key, place); err != nil {
				return err
			}
			attrs["context:"+name] = "local:" + key
			attrs["sharedkey:localdir:"+name] = sharedKey(place)
		}
	}
	return nil
}

// layout serves an OCI layout on disk, oci-layout://PATH[:TAG][@DIGEST], and gives its name on the wire.
func (r *Request) layout(place string) (string, error) {
	path, tag, dgst := splitLayout(strings.TrimPrefix(place, "oci-layout://"))
	if dgst == "" {
		index := ociindex.NewStoreIndex(path)
		desc, err := index.Get(tag)
		if err == nil && desc == nil {
			desc, err = index.GetSingle()
		}
		if err == nil && desc == nil {
			err = errors.New("failed to resolve digest")
		}
		if err != nil {
			return "", fmt.Errorf("oci-layout reference %q could not be resolved: %w", place, err)
		}
		dgst = desc.Digest
	}
	store, err := contentlocal.NewStore(path)
	if err != nil {
		return "", fmt.Errorf("invalid store at %s: %w", path, err)
	}
	id := identity.NewID()
	if r.Solve.OCIStores == nil {
		r.Solve.OCIStores = map[string]content.Store{}
	}
	r.Solve.OCIStores[id] = store
	name := "oci-layout://" + id
	if tag != "" {
		name += ":" + tag
	}
	return name + "@" + dgst.String(), nil
}

// splitLayout takes PATH[:TAG][@DIGEST] apart; with neither, the tag is latest.
func splitLayout(text string) (path, tag string, dgst digest.Digest) {
	path = text
	if i := strings.LastIndexByte(path, '@'); i >= 0 {
		if d, err := digest.Parse(path[i+1:]); err == nil {
			path, dgst = path[:i], d
		}
	}
	// A colon in the second place belongs to a drive's letter.
	if i := strings.LastIndexByte(path, ':'); i > 1 && reference.TagRegexp.FindString(path[i+1:]) == path[i+1:] && path[i+1:] != "" {
		path, tag = path[:i], path[i+1:]
	}
	if tag == "" && dgst == "" {
		tag = "latest"
	}
	return path, tag, dgst
}

// input gives the frontend what steps make.
func (r *Request) input(name string, state llb.State) {
	if r.Solve.FrontendInputs == nil {
		r.Solve.FrontendInputs = map[string]llb.State{}
	}
	r.Solve.FrontendInputs[name] = state
}

// mount offers a directory of ours to the engine.
func (r *Request) mount(name, dir string) error {
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		return err
	}
	r.Solve.LocalMounts[name] = fs
	return nil
}

func (r *Request) tempDir(name string) (string, error) {
	dir, err := os.MkdirTemp("", "berth-"+name+"-")
	if err != nil {
		return "", err
	}
	r.remove = append(r.remove, dir)
	return dir, nil
}

// sharedKey tells the engine that two builds sent the same directory, so that the second sends only what changed. Its name is
// for people; the rest keeps directories of one name, and machines, apart.
func sharedKey(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	host, _ := os.Hostname()
	sum := sha256.Sum256([]byte(host + "\x00" + abs))
	return filepath.Base(abs) + ":" + hex.EncodeToString(sum[:8])
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

func isHTTP(url string) bool {
	return strings.HasPrefix(url, "https://") || strings.HasPrefix(url, "http://")
}

// IsRemote reports whether a context is the engine's to fetch.
func IsRemote(place string) bool {
	if isHTTP(place) {
		return true
	}
	_, ok, _ := dfgitutil.ParseGitRef(place)
	return ok
}

// GitHost is the host of a git repository; "" where place is none.
func GitHost(place string) string {
	if _, isGit, _ := dfgitutil.ParseGitRef(place); !isGit {
		return ""
	}
	u, err := gitutil.ParseURL(place)
	if err != nil {
		return ""
	}
	return u.Host
}

func isGitSSH(place string) bool {
	u, err := gitutil.ParseURL(place)
	return err == nil && u.Scheme == gitutil.SSHProtocol
}

// addGitCapability asks for a frontend that understands the query of a git URL, when place has one.
func addGitCapability(attrs map[string]string, place, suffix string) {
	if u, err := gitutil.ParseURL(place); err == nil && len(u.Query) > 0 {
		addCapability(attrs, "moby.buildkit.frontend.gitquerystring"+suffix)
	}
}
