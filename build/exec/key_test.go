package exec

import (
	"reflect"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/build/content"
	"berth/build/graph"
)

func keyOf(op *pb.ExecOp, platform ocispec.Platform) string {
	s := &step{v: &graph.Vertex{Platform: platform}, op: op}
	return s.Key().String()
}

// What changes a step's key, and what must not.
func TestKey(t *testing.T) {
	amd := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	plain := func() *pb.ExecOp {
		op := shell("make", cacheMount("/cache", 0), cacheMount("other", 0))
		op.Meta.ExtraHosts = []*pb.HostIP{{Host: "h", IP: "1.2.3.4"}}
		return op
	}
	base := keyOf(plain(), amd)
	for _, c := range []struct {
		name   string
		same   bool
		change func(*pb.ExecOp)
	}{
		{"nothing", true, func(op *pb.ExecOp) {}},
		{"proxies", true, func(op *pb.ExecOp) { op.Meta.ProxyEnv = &pb.ProxyEnv{HttpProxy: "x"} }},
		{"address of a host", true, func(op *pb.ExecOp) { op.Meta.ExtraHosts[0].IP = "::1" }},
		{"name of a host", false, func(op *pb.ExecOp) { op.Meta.ExtraHosts[0].Host = "x" }},
		{"id of a cache", true, func(op *pb.ExecOp) { op.Mounts[2].CacheOpt.ID = "another" }},
		{"sharing of a cache", true, func(op *pb.ExecOp) { op.Mounts[2].CacheOpt.Sharing = pb.CacheSharingOpt_LOCKED }},
		{"default id of a cache", false, func(op *pb.ExecOp) { op.Mounts[1].CacheOpt.ID = "ns//cache" }},
		{"arguments", false, func(op *pb.ExecOp) { op.Meta.Args = []string{"x"} }},
		{"environment", false, func(op *pb.ExecOp) { op.Meta.Env = append(op.Meta.Env, "A=B") }},
		{"user", false, func(op *pb.ExecOp) { op.Meta.User = "web" }},
		{"network", false, func(op *pb.ExecOp) { op.Network = pb.NetMode_HOST }},
		{"security", false, func(op *pb.ExecOp) { op.Security = pb.SecurityMode_INSECURE }},
		{"name of a secret", false, func(op *pb.ExecOp) { op.Secretenv = []*pb.SecretEnv{{ID: "a", Name: "A"}} }},
		{"part of an input", false, func(op *pb.ExecOp) {
			op.Mounts = append(op.Mounts, &pb.Mount{Input: 1, Dest: "/x", Selector: "/a", Output: -1})
		}},
	} {
		op := plain()
		c.change(op)
		if got := keyOf(op, amd) == base; got != c.same {
			t.Errorf("%s: the key is the same: %v, want %v", c.name, got, c.same)
		}
	}
	if keyOf(plain(), ocispec.Platform{OS: "linux", Architecture: "arm64"}) == base {
		t.Error("platforms share a key")
	}
	op := plain()
	before := op.CloneVT()
	keyOf(op, amd)
	if !op.EqualVT(before) {
		t.Error("Key changes the operation")
	}
}

func TestReads(t *testing.T) {
	skip := int64(pb.SkipOutput)
	all := []content.Selector{{}}
	part := func(paths ...string) (list []content.Selector) {
		for _, p := range paths {
			list = append(list, content.Selector{Path: p, FollowLinks: true})
		}
		return list
	}
	for _, c := range []struct {
		name   string
		mounts []*pb.Mount
		want   []content.Selector
	}{
		{"root", []*pb.Mount{{Dest: "/", Output: 0}}, nil},
		{"root by content", []*pb.Mount{{Dest: "/", Output: 0, ContentCache: pb.MountContentCache_ON}}, all},
		{"read-only", []*pb.Mount{{Dest: "/x", Output: skip, Readonly: true}}, all},
		{"part", []*pb.Mount{{Dest: "/x", Output: skip, Selector: "a/b/"}}, part("/a/b")},
		{"part that is kept", []*pb.Mount{{Dest: "/x", Output: 1, Selector: "/a"}}, nil},
		{"read-only part that is kept", []*pb.Mount{{Dest: "/x", Output: 1, Selector: "/a", Readonly: true}}, part("/a")},
		{"off", []*pb.Mount{{Dest: "/x", Output: skip, ContentCache: pb.MountContentCache_OFF}}, nil},
		{"parts", []*pb.Mount{{Dest: "/x", Output: skip, Selector: "/b"}, {Dest: "/y", Output: skip, Selector: "/a"}, {Dest: "/z", Output: skip, Selector: "/a/c"}, {Dest: "/w", Output: skip, Selector: "/ab"}}, part("/a", "/ab", "/b")},
		{"part and whole", []*pb.Mount{{Dest: "/x", Output: skip, Selector: "/b"}, {Dest: "/y", Output: skip}}, all},
		{"one unsafe", []*pb.Mount{{Dest: "/x", Output: 1, Selector: "/b"}, {Dest: "/y", Output: skip}}, nil},
		{"others", []*pb.Mount{{Input: 1, Dest: "/x", Output: skip}, {Dest: "/s", MountType: pb.MountType_SECRET}}, nil},
	} {
		s := &step{op: &pb.ExecOp{Mounts: c.mounts}}
		if got := s.Reads(0); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
