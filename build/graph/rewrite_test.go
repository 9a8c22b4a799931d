package graph

import (
	"errors"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
)

// renaming gives what stands for other images.
func renaming(from, to string) func(*pb.SourceOp) (*pb.SourceOp, error) {
	return func(s *pb.SourceOp) (*pb.SourceOp, error) {
		if s.Identifier != from {
			return s, nil
		}
		next := s.CloneVT()
		next.Identifier = to
		return next, nil
	}
}

// A definition with another source is what the client would have sent with that source.
func TestRewrite(t *testing.T) {
	with := func(image string) *pb.Definition {
		base := llb.Image(image, llb.WithCustomName("base"))
		run := base.Run(llb.Shlex("make"), llb.AddMount("/src", llb.Local("context", llb.LocalUniqueID("x"))), llb.IgnoreCache, llb.WithCustomName("make it"))
		return marshal(t, llb.Merge([]llb.State{run.Root(), llb.Scratch().File(llb.Copy(base, "/a", "/b"))}))
	}
	given, want := with("docker.io/library/a:1"), with("docker.io/library/b:2")
	before := given.CloneVT()
	got, err := Rewrite(given, renaming("docker-image://docker.io/library/a:1", "docker-image://docker.io/library/b:2"))
	if err != nil {
		t.Fatal(err)
	}
	parsed := func(def *pb.Definition) string {
		g, err := Parse(def)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, v := range g.Vertices {
			b.WriteString(v.Digest.String() + " " + v.Name + "\n")
		}
		return b.String() + g.Result.Vertex.String()
	}
	if parsed(got) != parsed(want) {
		t.Errorf("%s\nwant\n%s", parsed(got), parsed(want))
	}
	if !given.EqualVT(before) {
		t.Error("the definition that was given has changed")
	}
}

func TestRewriteKeepsPlaces(t *testing.T) {
	def := marshal(t, program())
	g, err := Parse(def)
	if err != nil {
		t.Fatal(err)
	}
	def.Source = &pb.Source{Infos: []*pb.SourceInfo{{Filename: "Dockerfile"}}, Locations: map[string]*pb.Locations{}}
	for i, v := range g.Vertices {
		def.Source.Locations[string(v.Digest)] = &pb.Locations{Locations: []*pb.Location{{Ranges: []*pb.Range{{Start: &pb.Position{Line: int32(i)}}}}}}
	}
	got, err := Rewrite(def, renaming("docker-image://docker.io/library/debian:12", "docker-image://docker.io/library/debian:13"))
	if err != nil {
		t.Fatal(err)
	}
	g, err = Parse(got)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range g.Vertices {
		if l := got.Source.Locations[string(v.Digest)].GetLocations(); len(l) != 1 || l[0].Ranges[0].Start.Line != int32(i) {
			t.Errorf("%s is at %v, want line %d", v.Name, l, i)
		}
	}
}

func TestRewriteLeavesAlone(t *testing.T) {
	same := func(s *pb.SourceOp) (*pb.SourceOp, error) { return s, nil }
	for _, def := range []*pb.Definition{nil, {}, marshal(t, program())} {
		if got, err := Rewrite(def, same); err != nil || got != def {
			t.Errorf("%v, %v", got, err)
		}
	}
	no := errors.New("no")
	if _, err := Rewrite(marshal(t, program()), func(*pb.SourceOp) (*pb.SourceOp, error) { return nil, no }); !errors.Is(err, no) {
		t.Errorf("%v", err)
	}
	if _, err := Rewrite(&pb.Definition{Def: [][]byte{{}}}, same); err == nil {
		t.Error("a malformed definition is rewritten")
	}
}
