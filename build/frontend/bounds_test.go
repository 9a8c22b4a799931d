package frontend

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"berth/base/fault"
	"berth/build/progress"
)

// nobody resolves every source to itself.
type nobody struct{}

func (nobody) ResolveSourceMetadata(_ context.Context, op *pb.SourceOp, _ sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	return &sourceresolver.MetaResponse{Op: op}, nil
}

func newHost() *Host { return &Host{Progress: progress.Discard, Sources: nobody{}} }

// What frontends ask is kept until the build ends, so it has an end.
func TestCallsAreBounded(t *testing.T) {
	h := newHost()
	c := h.client(&Call{})
	var err error
	n := 0
	for ; err == nil && n <= maxCalls; n++ {
		if n%2 == 0 {
			_, err = c.Solve(t.Context(), gwclient.SolveRequest{})
		} else {
			_, err = c.ResolveSourceMetadata(t.Context(), &pb.SourceOp{Identifier: "local://x"}, sourceresolver.Opt{})
		}
	}
	if n != maxCalls+1 || !fault.Is(err, fault.Invalid) {
		t.Errorf("%d calls: %v", n-1, err)
	}

	h = newHost()
	big := map[string]string{"build-arg:X": strings.Repeat("x", maxKept/8)}
	n, err = 0, nil
	for ; err == nil && n < 20; n++ {
		_, err = h.client(&Call{}).Solve(t.Context(), gwclient.SolveRequest{FrontendOpt: big})
	}
	if n != 8 || !fault.Is(err, fault.Invalid) {
		t.Errorf("%d large calls: %v", n-1, err)
	}
}

func TestFrontendsAreBounded(t *testing.T) {
	h := newHost()
	if _, err := h.begin(maxDepth); !fault.Is(err, fault.Invalid) {
		t.Errorf("too deep: %v", err)
	}
	if _, err := h.call(t.Context(), gwclient.SolveRequest{Frontend: dockerfileName}, nil, &Call{depth: maxDepth}); !fault.Is(err, fault.Invalid) {
		t.Errorf("too deep: %v", err)
	}
	var ends []func()
	for range maxRunning {
		end, err := h.begin(0)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	if _, err := h.begin(0); !fault.Is(err, fault.Unavailable) {
		t.Errorf("too many: %v", err)
	}
	ends[0]()
	if _, err := h.begin(0); err != nil {
		t.Error(err)
	}
}

func TestReferencesAreBounded(t *testing.T) {
	h := newHost()
	b := h.NewBridge(&Call{})
	ids := map[string]string{}
	for i := range maxPlatforms + 1 {
		ids[fmt.Sprint(i)] = ""
	}
	many := &gwpb.Attestations{Attestation: make([]*gwpb.Attestation, maxPlatforms+1)}
	for name, res := range map[string]*gwpb.Result{
		"references":   {Result: &gwpb.Result_RefsDeprecated{RefsDeprecated: &gwpb.RefMapDeprecated{Refs: ids}}},
		"attestations": {Attestations: map[string]*gwpb.Attestations{"x": many}},
	} {
		if _, err := b.Return(t.Context(), &gwpb.ReturnRequest{Result: res}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range maxReferences {
		b.refs[fmt.Sprint(i)] = nil
	}
	if _, err := b.Solve(t.Context(), &gwpb.SolveRequest{AllowResultReturn: true}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a reference too many: %v", err)
	}
	for i := range maxContainers {
		b.containers[fmt.Sprint(i)] = nil
	}
	if _, err := b.NewContainer(t.Context(), &gwpb.NewContainerRequest{ContainerID: "more"}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a container too many: %v", err)
	}
	if _, err := b.NewContainer(t.Context(), &gwpb.NewContainerRequest{ContainerID: "1"}); status.Code(err) != codes.AlreadyExists {
		t.Errorf("one that there is: %v", err)
	}
}

func TestTreesOfFailedStepsAreBounded(t *testing.T) {
	h := newHost()
	first := h.keep(held{mount: 0})
	for i := range maxHeld {
		h.keep(held{mount: i})
	}
	if first == "" || h.keep(held{mount: 0}) != first || h.keep(held{mount: maxHeld}) != "" || len(h.held) != maxHeld {
		t.Errorf("%d trees", len(h.held))
	}
}

// A frontend in another process is told how many calls it may have under way.
func TestStreamsAreBounded(t *testing.T) {
	ours, theirs := net.Pipe()
	stop := (&Bridge{}).serve(ours)
	defer stop()
	defer theirs.Close()
	go theirs.Write([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")) // no settings of its own
	frame, err := http2.NewFramer(nil, theirs).ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("%v", frame)
	}
	if n, _ := settings.Value(http2.SettingMaxConcurrentStreams); n != maxStreams {
		t.Errorf("%d calls at once, want %d", n, maxStreams)
	}
}
