package build

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	control "github.com/moby/buildkit/api/services/control"
	solvererrors "github.com/moby/buildkit/solver/errdefs"
	provenance "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// An inspected is a build of the history in full. Its JSON form, and what templates see, is buildx's.
type inspected struct {
	Name string `json:",omitempty"`
	Ref  string

	Context       string   `json:",omitempty"`
	Dockerfile    string   `json:",omitempty"`
	VCSRepository string   `json:",omitempty"`
	VCSRevision   string   `json:",omitempty"`
	Target        string   `json:",omitempty"`
	Platform      []string `json:",omitempty"`
	KeepGitDir    bool     `json:",omitempty"`
	NamedContexts []named  `json:",omitempty"`

	StartedAt   *time.Time      `json:",omitempty"`
	CompletedAt *time.Time      `json:",omitempty"`
	Duration    time.Duration   `json:",omitempty"`
	Status      string          `json:",omitempty"` // running, completed, failed, canceled
	Error       *inspectedError `json:",omitempty"`

	NumCompletedSteps int32
	NumTotalSteps     int32
	NumCachedSteps    int32

	BuildArgs []named `json:",omitempty"`
	Labels    []named `json:",omitempty"`
	Config    inspectedConfig

	Materials   []material   `json:",omitempty"`
	Attachments []attachment `json:",omitempty"`
}

// An inspectedConfig is what a build was told beside its contexts.
type inspectedConfig struct {
	Network               string   `json:",omitempty"`
	ExtraHosts            []string `json:",omitempty"`
	Hostname              string   `json:",omitempty"`
	CgroupParent          string   `json:",omitempty"`
	ImageResolveMode      string   `json:",omitempty"`
	MultiPlatform         bool     `json:",omitempty"`
	NoCache               bool     `json:",omitempty"`
	NoCacheFilter         []string `json:",omitempty"`
	ShmSize               string   `json:",omitempty"`
	Ulimit                string   `json:",omitempty"`
	Memory                string   `json:",omitempty"`
	MemorySwap            string   `json:",omitempty"`
	CPUShares             string   `json:",omitempty"`
	CPUPeriod             string   `json:",omitempty"`
	CPUQuota              string   `json:",omitempty"`
	CPUSetCPUs            string   `json:",omitempty"`
	CPUSetMems            string   `json:",omitempty"`
	CacheMountNS          string   `json:",omitempty"`
	DockerfileCheckConfig string   `json:",omitempty"`
	SourceDateEpoch       string   `json:",omitempty"`
	SandboxHostname       string   `json:",omitempty"`
	RestRaw               []named  `json:",omitempty"`
}

type (
	named struct {
		Name  string `json:",omitempty"`
		Value string `json:",omitempty"`
	}
	material struct {
		URI     string   `json:",omitempty"`
		Digests []string `json:",omitempty"`
	}
	attachment struct {
		Digest   string `json:",omitempty"`
		Platform string `json:",omitempty"`
		Type     string `json:",omitempty"`
	}
	inspectedError struct {
		Code    int    `json:",omitempty"`
		Message string `json:",omitempty"`
		Sources []byte `json:",omitempty"` // the lines of files that it is about
	}
)

func newHistoryInspect(d *command.DockerCli) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "inspect [OPTIONS] [REF]",
		Short:   "Inspect a build record",
		Example: "  berth buildx history inspect\n  berth buildx history inspect --format json ^1",
		Args:    cli.RequiresMaxArgs(1),
		RunE: atBuilder(d, func(ctx context.Context, b *conn, args []string) error {
			found, err := b.find(ctx, args)
			if err != nil {
				return err
			}
			i, err := b.inspect(ctx, found[0])
			if err != nil {
				return err
			}
			switch format {
			case "json":
				return printJSON(d.Out(), i)
			case "", "pretty":
				return i.print(d.Out(), len(args) == 0)
			}
			return printTemplate(d.Out(), format, i)
		}),
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVar(&format, "format", "pretty", "Format the output")
	c.AddCommand(newHistoryAttachment(d))
	return c
}

// inspect reads all that the history has of a build.
func (c *conn) inspect(ctx context.Context, b pastBuild) (*inspected, error) {
	r := b.record
	attrs := maps.Clone(r.FrontendAttrs)
	if attrs == nil {
		attrs = map[string]string{}
	}
	take := func(key string) string {
		v := attrs[key]
		delete(attrs, key)
		return v
	}
	took := func(prefix string) (all []named) {
		for _, k := range slices.Sorted(maps.Keys(attrs)) {
			if name, ok := strings.CutPrefix(k, prefix); ok {
				all = append(all, named{name, take(k)})
			}
		}
		return all
	}
	yes := func(text string) bool { on, err := strconv.ParseBool(text); return err == nil && on }
	list := func(text string) []string {
		if text == "" {
			return nil
		}
		return strings.Split(text, ",")
	}
	take("frontend.caps")
	i := &inspected{
		Name: b.Name, Ref: r.Ref, Context: take("context"), Dockerfile: take("filename"), Target: take("target"), Platform: list(take("platform")),
		KeepGitDir: yes(take("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR")), NumCompletedSteps: r.NumCompletedSteps, NumTotalSteps: r.NumTotalSteps, NumCachedSteps: r.NumCachedSteps,
	}
	if i.Context == "" {
		i.VCSRepository, i.VCSRevision = attrs["vcs:source"], attrs["vcs:revision"]
	}
	_, all := attrs["no-cache"]
	filter := list(take("no-cache"))
	i.Config = inspectedConfig{
		Network: take("force-network-mode"), Hostname: take("hostname"), CgroupParent: take("cgroup-parent"), ImageResolveMode: take("image-resolve-mode"),
		NoCache: all && len(filter) == 0, NoCacheFilter: filter, ExtraHosts: list(take("add-hosts")), ShmSize: take("shm-size"), Ulimit: take("ulimit"),
		Memory: take("memory"), MemorySwap: take("memswap"), CPUShares: take("cpushares"), CPUPeriod: take("cpuperiod"), CPUQuota: take("cpuquota"),
		CPUSetCPUs: take("cpusetcpus"), CPUSetMems: take("cpusetmems"), CacheMountNS: take("build-arg:BUILDKIT_CACHE_MOUNT_NS"),
		DockerfileCheckConfig: take("build-arg:BUILDKIT_DOCKERFILE_CHECK"), SourceDateEpoch: take("build-arg:SOURCE_DATE_EPOCH"),
		SandboxHostname: take("build-arg:SANDBOX_HOSTNAME"),
	}
	i.Config.MultiPlatform = yes(take("build-arg:BUILDKIT_MULTI_PLATFORM"))
	i.Config.MultiPlatform = yes(take("multi-platform")) || i.Config.MultiPlatform
	i.NamedContexts, i.BuildArgs, i.Labels = took("context:"), took("build-arg:"), took("label:")
	took("vcs:")
	took("attest:")
	i.Config.RestRaw = took("")
	begun := r.CreatedAt.AsTime().Local()
	i.StartedAt, i.Status, i.Duration = &begun, "running", time.Since(begun)
	if r.CompletedAt != nil {
		ended := r.CompletedAt.AsTime().Local()
		i.CompletedAt, i.Status, i.Duration = &ended, "completed", ended.Sub(begun)
	}
	if err := c.inspectError(ctx, i, r); err != nil {
		return nil, err
	}
	return i, c.inspectResults(ctx, i, r)
}

// inspectError tells how a build failed, and where in its files.
func (c *conn) inspectError(ctx context.Context, i *inspected, r *control.BuildHistoryRecord) error {
	if r.Error == nil {
		return nil
	}
	i.Status, i.Error = "failed", &inspectedError{Code: int(r.Error.Code), Message: r.Error.Message}
	if codes.Code(r.Error.Code) == codes.Canceled {
		i.Status = "canceled"
	}
	if r.ExternalError == nil {
		return nil
	}
	text, err := c.blob(ctx, ocispec.Descriptor{MediaType: r.ExternalError.MediaType, Digest: digest.Digest(r.ExternalError.Digest), Size: r.ExternalError.Size})
	if err != nil {
		return err
	}
	var st spb.Status
	if err := proto.Unmarshal(text, &st); err != nil {
		return fmt.Errorf("read the error of %s: %w", r.Ref, err)
	}
	var lines bytes.Buffer
	for _, s := range solvererrors.Sources(grpcerrors.FromGRPC(status.ErrorProto(&st))) {
		if err := s.Print(&lines); err != nil {
			return err
		}
		lines.WriteByte('\n')
	}
	i.Error.Sources = lines.Bytes()
	return nil
}

// inspectResults lists what a build made, and what its provenance says that it was made of.
func (c *conn) inspectResults(ctx context.Context, i *inspected, r *control.BuildHistoryRecord) error {
	results := maps.Clone(r.Results)
	if results == nil {
		results = map[string]*control.BuildResultInfo{}
	}
	if r.Result != nil {
		results[""] = r.Result
	}
	for _, platform := range slices.Sorted(maps.Keys(results)) {
		result := results[platform]
		for _, k := range slices.Sorted(maps.Keys(result.Results)) {
			i.Attachments = append(i.Attachments, attachment{result.Results[k].Digest, platform, result.Results[k].MediaType})
		}
		for _, a := range result.Attestations {
			i.Attachments = append(i.Attachments, attachment{a.Digest, platform, a.Annotations["in-toto.io/predicate-type"]})
		}
		desc, ok := provenanceOf(result)
		if !ok || i.Materials != nil {
			continue
		}
		text, err := c.blob(ctx, desc)
		if err != nil {
			return err
		}
		if i.Materials, err = materials(text, desc.Annotations["in-toto.io/predicate-type"]); err != nil {
			return err
		}
	}
	return nil
}

// materials are what a provenance says that a build was made of.
func materials(text []byte, predicateType string) (all []material, err error) {
	var p provenance.ProvenancePredicateSLSA1
	if predicateType == slsa1 {
		err = json.Unmarshal(text, &p)
	} else {
		var first provenance.ProvenancePredicateSLSA02
		if err = json.Unmarshal(text, &first); err == nil {
			p = *first.ConvertToSLSA1()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read a provenance: %w", err)
	}
	for _, m := range p.BuildDefinition.ResolvedDependencies {
		one := material{URI: m.URI}
		for _, kind := range slices.Sorted(maps.Keys(m.Digest)) {
			one.Digests = append(one.Digests, kind+":"+m.Digest[kind])
		}
		all = append(all, one)
	}
	return all, nil
}

// print shows it to people. ref is told where nobody named it.
func (i *inspected) print(out io.Writer, ref bool) error {
	lines := func(rows ...named) {
		w := tabwriter.NewWriter(out, 1, 8, 1, '\t', 0)
		for _, r := range rows {
			if r.Value != "" {
				fmt.Fprintf(w, "%s:\t%s\n", r.Name, r.Value)
			}
		}
		_ = w.Flush()
		fmt.Fprintln(out)
	}
	table := func(head string, rows []string) {
		if len(rows) == 0 {
			return
		}
		w := tabwriter.NewWriter(out, 1, 8, 1, '\t', 0)
		fmt.Fprintf(w, "%s\n%s\n", head, strings.Join(rows, "\n"))
		_ = w.Flush()
		fmt.Fprintln(out)
	}
	pairs := func(head string, all []named) {
		var rows []string
		for _, n := range all {
			rows = append(rows, n.Name+"\t"+n.Value)
		}
		table(head+"\tVALUE", rows)
	}
	truth := func(on bool) string {
		if on {
			return "true"
		}
		return ""
	}
	shown := ""
	if ref {
		shown = i.Ref
	}
	lines(named{"Name", i.Name}, named{"Ref", shown}, named{"Context", i.Context}, named{"Dockerfile", i.Dockerfile}, named{"VCS Repository", i.VCSRepository},
		named{"VCS Revision", i.VCSRevision}, named{"Target", i.Target}, named{"Platforms", strings.Join(i.Platform, ", ")}, named{"Keep Git Dir", truth(i.KeepGitDir)})
	pairs("NAMED CONTEXT", i.NamedContexts)

	took, state, failed := shortDuration(i.Duration), "", ""
	switch i.Status {
	case "running":
		took += " (running)"
	case "canceled":
		state = "Canceled"
	case "failed":
		failed = codes.Code(i.Error.Code).String() + " " + i.Error.Message
	}
	lines(named{"Started", i.StartedAt.Format("2006-01-02 15:04:05")}, named{"Duration", took}, named{"Error", failed}, named{"Status", state},
		named{"Build Steps", fmt.Sprintf("%d/%d (%.0f%% cached)", i.NumCompletedSteps, i.NumTotalSteps, 100*float64(i.NumCachedSteps)/float64(max(i.NumTotalSteps, 1)))})

	c := i.Config
	lines(append([]named{
		{"Network", c.Network}, {"Hostname", c.Hostname}, {"Extra Hosts", strings.Join(c.ExtraHosts, ", ")}, {"Cgroup Parent", c.CgroupParent},
		{"Image Resolve Mode", c.ImageResolveMode}, {"Multi-Platform", truth(c.MultiPlatform)}, {"No Cache", truth(c.NoCache)},
		{"No Cache Filter", strings.Join(c.NoCacheFilter, ", ")}, {"Shm Size", c.ShmSize}, {"Resource Limits", c.Ulimit}, {"Memory", c.Memory},
		{"Memory Swap", c.MemorySwap}, {"CPU Shares", c.CPUShares}, {"CPU Period", c.CPUPeriod}, {"CPU Quota", c.CPUQuota}, {"CPUSet CPUs", c.CPUSetCPUs},
		{"CPUSet Mems", c.CPUSetMems}, {"Cache Mount Namespace", c.CacheMountNS}, {"Dockerfile Check Config", c.DockerfileCheckConfig},
		{"Source Date Epoch", c.SourceDateEpoch}, {"Sandbox Hostname", c.SandboxHostname},
	}, c.RestRaw...)...)
	pairs("BUILD ARG", i.BuildArgs)
	pairs("LABEL", i.Labels)

	var rows []string
	for _, m := range i.Materials {
		rows = append(rows, m.URI+"\t"+strings.Join(m.Digests, ", "))
	}
	table("Materials:\nURI\tDIGEST", rows)
	rows = nil
	for _, a := range i.Attachments {
		rows = append(rows, a.Digest+"\t"+a.Platform+"\t"+a.Type)
	}
	table("Attachments:\nDIGEST\tPLATFORM\tTYPE", rows)
	if i.Error != nil {
		if _, err := out.Write(i.Error.Sources); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "Print build logs: %s buildx history logs %s\n", programName(), i.Ref)
	return err
}
