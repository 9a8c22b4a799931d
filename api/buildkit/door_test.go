package buildkit_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"

	"berth/build"
)

// A client may run the frontend itself (buildx does), read files of results and start containers in them.
func TestGatewayOverTheWire(t *testing.T) {
	b := newBench(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs busybox: a static program for containers")
	}
	dir := b.context("busybox", string(busybox), "Dockerfile", "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nCOPY Dockerfile /etc/d\n")
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	opt := client.SolveOpt{FrontendAttrs: map[string]string{}, LocalMounts: map[string]fsutil.FS{"context": fs, "dockerfile": fs}}
	_, err = b.client.Build(ctx, opt, "", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		res, err := builder.Build(ctx, c)
		if err != nil {
			return nil, err
		}
		ref, err := res.SingleRef()
		if err != nil {
			return nil, err
		}
		data, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: "/etc/d", Range: &gateway.FileRange{Length: 4}})
		if err != nil || string(data) != "FROM" {
			t.Errorf("the file begins with %q, %v", data, err)
		}
		if _, err := ref.StatFile(ctx, gateway.StatRequest{Path: "/none"}); err == nil {
			t.Error("a file that is not there was described")
		}
		list, err := ref.ReadDir(ctx, gateway.ReadDirRequest{Path: "/etc"})
		if err != nil || len(list) != 1 || list[0].Path != "d" {
			t.Errorf("the directory holds %v, %v", list, err)
		}
		box, err := c.NewContainer(ctx, gateway.NewContainerRequest{
			NetMode: pb.NetMode_NONE, Mounts: []gateway.Mount{{Dest: "/", MountType: pb.MountType_BIND, Ref: ref}},
		})
		if err != nil {
			return nil, err
		}
		defer box.Release(ctx)
		out := &strings.Builder{}
		p, err := box.Start(ctx, gateway.StartRequest{
			Args: []string{"/bin/sh", "-c", "read x; echo got $x; echo more > /made; exit 3"}, Cwd: "/",
			Stdin: io.NopCloser(strings.NewReader("this\n")), Stdout: nopWriter{out}, Stderr: nopWriter{out},
		})
		if err != nil {
			return nil, err
		}
		if err := p.Wait(); err == nil || !strings.Contains(err.Error(), "exit code: 3") {
			t.Errorf("the process ended with %v", err)
		}
		if out.String() != "got this\n" {
			t.Errorf("the process said %q", out)
		}
		if _, err := c.NewContainer(ctx, gateway.NewContainerRequest{NetMode: pb.NetMode_HOST, Mounts: []gateway.Mount{{Dest: "/", Ref: ref}}}); err == nil {
			t.Error("a container got the host's network, which nobody allowed")
		}
		return res, nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

// What a failed step left can be looked at while the build lasts.
func TestFailedStepIsKept(t *testing.T) {
	b := newBench(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs busybox: a static program for containers")
	}
	dir := b.context("busybox", string(busybox), "Dockerfile", "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nRUN --network=none echo half > /half; exit 9\n")
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	opt := client.SolveOpt{FrontendAttrs: map[string]string{}, LocalMounts: map[string]fsutil.FS{"context": fs, "dockerfile": fs}}
	seen := false
	_, err = b.client.Build(t.Context(), opt, "", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		_, err := c.Solve(ctx, gateway.SolveRequest{Frontend: "dockerfile.v0", Evaluate: true})
		var failed *errdefs.SolveError
		if !asSolve(err, &failed) {
			t.Errorf("error %v is no failed solve", err)
			return nil, err
		}
		if failed.Op.GetExec() == nil || len(failed.MountIDs) == 0 || failed.MountIDs[0] == "" {
			t.Errorf("the failed solve tells %+v", failed.Solve)
			return nil, err
		}
		box, cerr := c.NewContainer(ctx, gateway.NewContainerRequest{
			NetMode: pb.NetMode_NONE, Mounts: []gateway.Mount{{Dest: "/", MountType: pb.MountType_BIND, ResultID: failed.MountIDs[0]}},
		})
		if cerr != nil {
			t.Error(cerr)
			return nil, err
		}
		defer box.Release(ctx)
		data, rerr := box.ReadFile(ctx, gateway.ReadContainerRequest{ReadRequest: gateway.ReadRequest{Filename: "/half"}})
		seen = rerr == nil && string(data) == "half\n"
		if !seen {
			t.Errorf("the failed step left %q, %v", data, rerr)
		}
		return nil, err
	}, nil)
	if err == nil || !seen {
		t.Errorf("the build ended with %v", err)
	}
}

func asSolve(err error, to **errdefs.SolveError) bool {
	for err != nil {
		if s, ok := err.(*errdefs.SolveError); ok {
			*to = s
			return true
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return false
		}
		err = u.Unwrap()
	}
	return false
}

// A build is recorded with its log and its provenance, which clients read over the content service.
func TestHistoryOverTheWire(t *testing.T) {
	b := newBench(t)
	dir := b.context("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")
	if o := b.build(dir, func(o *client.SolveOpt) { o.Ref = "thebuild" }); o.err != nil {
		t.Fatal(o.err)
	}
	if o := b.build(dir, func(o *client.SolveOpt) { o.Ref, o.Internal = "secret", true }); o.err != nil {
		t.Fatal(o.err)
	}
	records := func() (list []*controlapi.BuildHistoryRecord) {
		s, err := b.client.ControlClient().ListenBuildHistory(t.Context(), &controlapi.BuildHistoryRequest{EarlyExit: true})
		if err != nil {
			t.Fatal(err)
		}
		for {
			e, err := s.Recv()
			if err == io.EOF {
				return list
			}
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, e.Record)
		}
	}
	list := records()
	if len(list) != 1 || list[0].Ref != "thebuild" || list[0].CompletedAt == nil || list[0].Error != nil || list[0].NumCompletedSteps == 0 {
		t.Fatalf("records are %v", list)
	}
	store := proxy.NewContentStore(b.client.ContentClient())
	read := func(d *controlapi.Descriptor) string {
		data, err := content.ReadBlob(t.Context(), store, ocispec.Descriptor{Digest: digest.Digest(d.GetDigest()), Size: d.GetSize()})
		if err != nil {
			t.Fatalf("%v: %v", d, err)
		}
		return string(data)
	}
	if len(list[0].Result.GetAttestations()) != 1 || !strings.Contains(read(list[0].Result.Attestations[0]), `"dockerfile.v0"`) {
		t.Errorf("attestations are %v", list[0].Result)
	}
	if !strings.Contains(read(list[0].Logs), "COPY Dockerfile /") || !strings.Contains(read(list[0].Trace), "COPY Dockerfile /") {
		t.Error("log or trace do not tell the step")
	}
	var names []string
	status, err := b.client.ControlClient().Status(t.Context(), &controlapi.StatusRequest{Ref: "thebuild"})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := status.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range m.Vertexes {
			names = append(names, v.Name)
		}
	}
	if !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "COPY Dockerfile /") }) {
		t.Errorf("a build that is over tells %v", names)
	}
	if _, err := b.client.ControlClient().UpdateBuildHistory(t.Context(), &controlapi.UpdateBuildHistoryRequest{Ref: "thebuild", Delete: true}); err != nil {
		t.Fatal(err)
	}
	if left := records(); len(left) != 0 {
		t.Errorf("records are left: %v", left)
	}
}

// Workers and versions are told so that stock clients offer all they can; what is asked of nobody is refused.
func TestWorkersAndUnknownBuilds(t *testing.T) {
	b := newBench(t)
	workers, err := b.client.ListWorkers(t.Context())
	if err != nil || len(workers) != 1 {
		t.Fatalf("workers are %v, %v", workers, err)
	}
	if workers[0].Labels["org.mobyproject.buildkit.worker.snapshotter"] == "" || len(workers[0].Platforms) == 0 {
		t.Errorf("the worker is %+v", workers[0])
	}
	if none, err := b.client.ListWorkers(t.Context(), client.WithFilter([]string{"id==other"})); err != nil || len(none) != 0 {
		t.Errorf("another worker is %v, %v", none, err)
	}
	info, err := b.client.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "github.com/moby/buildkit " + info.BuildkitVersion.Version + "\n"; !strings.Contains(string(mod), want) {
		t.Errorf("go.mod has no %q: the version that clients are told is not that of the library", want)
	}
	if v := info.BuildkitVersion.DockerfileVersion; v == "" || strings.Contains(v, "dev") {
		t.Errorf("the language's version is %q", v)
	}
	for what, opt := range map[string]client.SolveOpt{
		"exporter \"nope\" could not be found": {Exports: []client.ExportEntry{{Type: "nope"}}},
		"unknown cache":                        {CacheExports: []client.CacheOptionsEntry{{Type: "nope"}}},
		"unknown entitlement":                  {AllowedEntitlements: []string{"everything"}},
		"network proxy is not supported":       {ProxyNetwork: true},
		"invalid frontend: nope":               {Frontend: "nope"},
		"invalid SOURCE_DATE_EPOCH":            {Exports: []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"source-date-epoch": "yesterday"}}}},
	} {
		var def *llb.Definition
		if opt.Frontend == "" {
			if def, err = llb.Scratch().File(llb.Mkfile("/x", 0o644, nil)).Marshal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		opt.FrontendAttrs = map[string]string{}
		if _, err := b.client.Solve(t.Context(), def, opt, nil); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("error is %v, want %q in it", err, what)
		}
	}
}

// ServeConn speaks on a connection that somebody else accepted, and ends with it.
func TestServeConn(t *testing.T) {
	b := newBench(t)
	here, there := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- b.door.ServeConn(context.Background(), there) }()
	c, err := client.New(t.Context(), "", client.WithContextDialer(func(context.Context, string) (net.Conn, error) { return here, nil }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Info(t.Context()); err != nil {
		t.Error(err)
	}
	c.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

type nopWriter struct{ io.Writer }

func (nopWriter) Close() error { return nil }

// An engine that is to keep no history tells of no build, whether it went well or not.
func TestNoRecords(t *testing.T) {
	b := newBench(t, func(c *build.Config) { c.MaxRecords = build.NoRecords })
	dir := b.context("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n", "bad/Dockerfile", "FROM scratch\nCOPY none /\n")
	if o := b.build(dir, nil); o.err != nil {
		t.Fatal(o.err)
	}
	if o := b.build(filepath.Join(dir, "bad"), nil); o.err == nil {
		t.Fatal("a file that is not there was copied")
	}
	events, err := b.client.ControlClient().ListenBuildHistory(t.Context(), &controlapi.BuildHistoryRequest{EarlyExit: true})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := events.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("%v, %v", e, err)
	}
}

// Bytes as BuildKit of old made them are not promised where others would be made.
func TestCompatibilityVersion(t *testing.T) {
	b := newBench(t)
	dir := b.context("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")
	for version, want := range map[int]string{0: "", 30: "", 10: "unsupported compatibility-version 10", 40: "unsupported compatibility-version 40"} {
		o := b.build(dir, func(o *client.SolveOpt) { o.CompatibilityVersion = version })
		if (o.err == nil) != (want == "") || o.err != nil && !strings.Contains(o.err.Error(), want) {
			t.Errorf("%d: %v, want %q", version, o.err, want)
		}
	}
}
