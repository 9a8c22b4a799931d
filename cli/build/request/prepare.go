package request

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/protobuf/encoding/protojson"

	"berth/cli/build/expand"
)

// An Engine is what a request has to know about the engine that gets it.
type Engine struct {
	Attests     bool                   // images may be indexes with attestations beside them
	HostGateway func() (string, error) // the host's address as containers see it
	Proxy       map[string]string      // build args for proxies, as the configuration file has them for this engine
	// Fetch gives the file at a URL by way of the engine.
	Fetch func(ctx context.Context, url string) ([]byte, error)
}

// A Request is a Spec ready for the wire.
type Request struct {
	Solve client.SolveOpt
	// Name is what messages call the Dockerfile, where the wire's name says less: a path, stdin, inline.
	Name string
	// Sent is the Dockerfile's name on the wire.
	Sent string
	// Expanded is set when the Dockerfile that is sent was made from one with INCLUDE, IF and FOR.
	Expanded *expand.Result

	remove []string
}

// Release takes away what Prepare wrote.
func (r *Request) Release() {
	for _, dir := range r.remove {
		_ = os.RemoveAll(dir)
	}
}

// Prepare checks s and makes a request of it. in is the standard input, auth the session's part that has the registries' passwords.
func (s *Spec) Prepare(ctx context.Context, e Engine, in io.Reader, auth session.Attachable) (_ *Request, err error) {
	if s.NoCache && len(s.NoCacheFilter) > 0 {
		return nil, errors.New("--no-cache and --no-cache-filter cannot currently be used together")
	}
	r := &Request{Solve: client.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: map[string]string{},
		LocalMounts:   map[string]fsutil.FS{},
		CacheImports:  cacheEntries(s.CacheFrom),
		CacheExports:  cacheEntries(s.CacheTo),
		Internal:      s.Call.Name != "",
	}}
	defer func() {
		if err != nil {
			r.Release()
		}
	}()
	for _, step := range []func() error{
		func() error { return s.addSession(r, auth) },
		func() error { return s.addOutputs(r) },
		func() error { return s.addArgs(r, e) },
		func() error { return s.addInputs(ctx, r, e, in) },
		func() error { return s.addSteps(r, e) },
		func() error { return addPolicy(r) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (s *Spec) addSession(r *Request, auth session.Attachable) error {
	if auth != nil {
		r.Solve.Session = append(r.Solve.Session, auth)
	}
	secrets, err := secretProvider(s.Secrets)
	if err != nil {
		return err
	}
	r.Solve.Session = append(r.Solve.Session, secrets)
	agents := s.SSH
	if len(agents) == 0 && isGitSSH(s.Context) {
		agents = []SSH{{ID: "default"}}
	}
	ssh, err := sshProvider(agents)
	if err != nil {
		return err
	}
	if ssh != nil {
		r.Solve.Session = append(r.Solve.Session, ssh)
	}
	return nil
}

func (s *Spec) addOutputs(r *Request) error {
	if s.Call.Name != "" {
		return nil
	}
	entries, err := s.outputs()
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		stay, err := envBool("BUILDX_NO_DEFAULT_LOAD")
		if err != nil {
			return err
		}
		if !stay {
			entries = []client.ExportEntry{{Type: client.ExporterImage, Attrs: map[string]string{}}}
		}
	}
	notes, err := annotations(s.Annotations)
	if err != nil {
		return fmt.Errorf("parse annotations: %w", err)
	}
	tags, err := tagList(s.Tags)
	if err != nil {
		return err
	}
	_, platformCount, err := platformList(s.Platforms)
	if err != nil {
		return err
	}
	for _, x := range entries {
		if x.Type == cacheOnly {
			continue
		}
		maps.Copy(x.Attrs, notes)
		switch x.Type {
		case client.ExporterImage, client.ExporterOCI, client.ExporterDocker:
			if tags != "" {
				x.Attrs["name"] = tags
			}
		}
		if push, _ := strconv.ParseBool(x.Attrs["push"]); push && x.Type == client.ExporterImage && x.Attrs["name"] == "" {
			return errors.New("tag is needed when pushing to registry")
		}
		if x.Type == client.ExporterDocker && x.Output != nil && (platformCount > 1 || s.attests()) {
			return errors.New("docker exporter does not support exporting manifest lists, use the oci exporter instead")
		}
		if x.Type == client.ExporterDocker && x.Output == nil && x.OutputDir == "" || x.Type == client.ExporterImage {
			x.Type = "moby" // the engine's own images
			if s.Squash {
				x.Attrs["squash"] = "true"
			}
		}
		if v, ok := s.Args["BUILDKIT_INLINE_BUILDINFO_ATTRS"]; ok {
			x.Attrs["buildinfo-attrs"] = v
		}
		r.Solve.Exports = append(r.Solve.Exports, x)
	}
	return nil
}

// attests reports whether attestations were asked for by name.
func (s *Spec) attests() bool {
	return slices.ContainsFunc(s.Attests, func(a Attest) bool { return !a.Disabled })
}

func (s *Spec) addArgs(r *Request, e Engine) error {
	attrs := r.Solve.FrontendAttrs
	for k, v := range s.Args {
		attrs["build-arg:"+k] = v
	}
	if v := os.Getenv("SOURCE_DATE_EPOCH"); v != "" {
		if _, ok := s.Args["SOURCE_DATE_EPOCH"]; !ok {
			attrs["build-arg:SOURCE_DATE_EPOCH"] = v
		}
	}
	for k, v := range e.Proxy {
		given := false
		for have := range s.Args {
			given = given || strings.EqualFold(have, k)
		}
		if !given {
			attrs["build-arg:"+k] = v
		}
	}
	for k, v := range s.Labels {
		attrs["label:"+k] = v
	}
	if v, ok := s.Args["BUILDKIT_SYNTAX"]; ok {
		line := strings.TrimSpace(v)
		if line == "" {
			return errors.New("empty BUILDKIT_SYNTAX build-arg is invalid, use --build-arg BUILDKIT_SYNTAX without '=' for optional behavior")
		}
		image, _, _ := strings.Cut(line, " ")
		r.Solve.Frontend = "gateway.v0"
		attrs["source"], attrs["cmdline"] = image, v
	}
	if on, _ := strconv.ParseBool(s.Args["BUILDKIT_MULTI_PLATFORM"]); on {
		attrs["multi-platform"] = "true"
	}
	if on, _ := strconv.ParseBool(s.Args["BUILDKIT_INLINE_CACHE"]); on {
		r.Solve.CacheExports = append(r.Solve.CacheExports, client.CacheOptionsEntry{Type: "inline", Attrs: map[string]string{}})
	}
	if s.attests() && !e.Attests {
		return errors.New("attestations are not supported by the current BuildKit daemon")
	}
	without, err := envBool("BUILDX_NO_DEFAULT_ATTESTATIONS")
	if err != nil {
		return err
	}
	attestAttrs(s.Attests, attrs, e.Attests && !without)
	if s.Call.Name != "" {
		attrs["requestid"] = "frontend." + s.Call.Name
		addCapability(attrs, "moby.buildkit.frontend.subrequests+forward")
	}
	return nil
}

// addCapability names something that the frontend must know, or the build is refused instead of going wrong.
func addCapability(attrs map[string]string, name string) {
	caps := strings.Split(attrs["frontend.caps"], ",")
	if caps[0] == "" {
		caps = nil
	}
	if !slices.Contains(caps, name) {
		caps = append(caps, name)
	}
	slices.Sort(caps)
	attrs["frontend.caps"] = strings.Join(caps, ",")
}

// addSteps says how steps are to run.
func (s *Spec) addSteps(r *Request, e Engine) error {
	attrs := r.Solve.FrontendAttrs
	attrs["image-resolve-mode"] = pb.AttrImageResolveModePreferLocal
	if s.Pull {
		attrs["image-resolve-mode"] = pb.AttrImageResolveModeForcePull
	}
	if s.Target != "" {
		attrs["target"] = s.Target
	}
	if len(s.NoCacheFilter) > 0 {
		attrs["no-cache"] = strings.Join(s.NoCacheFilter, ",")
	}
	if s.NoCache {
		attrs["no-cache"] = ""
	}
	list, _, err := platformList(s.Platforms)
	if err != nil {
		return err
	}
	if list != "" {
		attrs["platform"] = list
	}
	if r.Solve.AllowedEntitlements, err = s.entitlements(); err != nil {
		return err
	}
	switch s.Network {
	case "", "default":
	case "host":
		attrs["force-network-mode"] = s.Network
		r.Solve.AllowedEntitlements = append(r.Solve.AllowedEntitlements, "network.host")
	case "none":
		attrs["force-network-mode"] = s.Network
	default:
		return fmt.Errorf("network mode %q not supported by buildkit - you can define a custom network for your builder using the network driver-opt in buildx create", s.Network)
	}
	hosts, err := hostList(s.ExtraHosts, e.HostGateway)
	if err != nil {
		return err
	}
	for key, value := range map[string]string{"add-hosts": hosts, "ulimit": strings.Join(s.Ulimits, ","), "cgroup-parent": s.CgroupParent} {
		if value != "" {
			attrs[key] = value
		}
	}
	if s.ShmSize > 0 {
		attrs["shm-size"] = strconv.FormatInt(s.ShmSize, 10)
	}
	return resourceAttrs(s.Resources, attrs)
}

// addPolicy adds the rules about sources that the environment names, as buildx does.
func addPolicy(r *Request) error {
	path := os.Getenv("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY")
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("failed to read policy file: %w", err)
	}
	var p spb.Policy
	if err := protojson.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("failed to parse policy: %w", err)
	}
	r.Solve.SourcePolicy = &p
	return nil
}
