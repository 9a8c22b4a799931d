package graph

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
)

var update = flag.Bool("update", false, "write the golden files")

// marshal makes a definition as clients do.
func marshal(t testing.TB, st llb.State) *pb.Definition {
	t.Helper()
	def, err := st.Marshal(context.Background(), llb.LinuxAmd64)
	if err != nil {
		t.Fatal(err)
	}
	return def.ToPB()
}

// program is a definition with every kind of operation.
func program() llb.State {
	base := llb.Image("docker.io/library/debian:12")
	src := llb.Local("context")
	tools := base.Run(llb.Shlex("apt-get install -y gcc"), llb.WithCustomName("[build 2/4] RUN apt-get install -y gcc")).Root()
	built := tools.Run(llb.Shlex("make"), llb.AddMount("/src", src, llb.Readonly), llb.IgnoreCache)
	out := built.AddMount("/out", llb.Scratch())
	files := llb.Scratch().File(llb.Mkdir("/etc", 0o755).Mkfile("/etc/motd", 0o644, []byte("hi")).Copy(out, "/bin/x", "/x"))
	return llb.Merge([]llb.State{files, llb.Diff(base, tools)})
}

func TestString(t *testing.T) {
	g, err := Parse(marshal(t, program()))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "program")
	if *update {
		if err := os.WriteFile(path, []byte(g.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || g.String() != string(want) {
		t.Errorf("%v\n%s", err, g)
	}
	for i, v := range g.Vertices {
		for _, in := range v.Inputs {
			at := -1
			for j, o := range g.Vertices[:i] {
				if o.Digest == in.Vertex {
					at = j
				}
			}
			if at < 0 {
				t.Errorf("%s stands before its input", v.Name)
			}
		}
	}
}

func TestEmpty(t *testing.T) {
	for _, def := range []*pb.Definition{nil, {}} {
		if g, err := Parse(def); err != nil || !g.Empty() || g.String() != "" {
			t.Errorf("%v %v", g, err)
		}
	}
}

// define makes a definition of operations, the last of which is the result; input "#N" is the digest of the operation N.
func define(t testing.TB, ops ...*pb.Op) *pb.Definition {
	t.Helper()
	def := &pb.Definition{}
	var digests []string
	add := func(op *pb.Op) {
		for _, in := range op.Inputs {
			if in != nil && strings.HasPrefix(in.Digest, "#") {
				in.Digest = digests[in.Digest[1]-'0']
			}
		}
		data, err := op.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		def.Def = append(def.Def, data)
		digests = append(digests, digest.FromBytes(data).String())
	}
	for _, op := range ops {
		add(op)
	}
	add(&pb.Op{Inputs: []*pb.Input{{Digest: digests[len(digests)-1]}}})
	return def
}

func source() *pb.Op {
	return &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "local://x"}}}
}

func execOp(change func(*pb.Op, *pb.ExecOp)) *pb.Op {
	e := &pb.ExecOp{Meta: &pb.Meta{Args: []string{"x"}}, Mounts: []*pb.Mount{{Dest: "/", Input: 0}}}
	op := &pb.Op{Inputs: []*pb.Input{{Digest: "#0"}}, Op: &pb.Op_Exec{Exec: e}}
	change(op, e)
	return op
}

func fileOp(actions ...*pb.FileAction) *pb.Op {
	return &pb.Op{Inputs: []*pb.Input{{Digest: "#0"}}, Op: &pb.Op_File{File: &pb.FileOp{Actions: actions}}}
}

func TestRefused(t *testing.T) {
	mkdir := &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/x"}}
	for _, c := range []struct {
		name string
		def  *pb.Definition
		want string
	}{
		{"no result", &pb.Definition{Def: [][]byte{{}}}, "invalid LLB with 1 vertexes"},
		{"garbage", &pb.Definition{Def: [][]byte{{0xff, 0xff}}}, "failed to parse llb proto op"},
		{"result without inputs", &pb.Definition{Def: [][]byte{define(t, source()).Def[0], {}}}, "no inputs on last vertex"},
		{"missing input", define(t, execOp(func(op *pb.Op, e *pb.ExecOp) { op.Inputs[0].Digest = "sha256:x" })), "missing input"},
		{"output that is not there", define(t, source(), execOp(func(op *pb.Op, e *pb.ExecOp) { op.Inputs[0].Index = 1 })), "output index 1"},
		{"negative output", define(t, source(), execOp(func(op *pb.Op, e *pb.ExecOp) { op.Inputs[0].Index = -1 })), "output index -1"},
		{"source with inputs", define(t, source(), &pb.Op{Inputs: []*pb.Input{{Digest: "#0"}}, Op: source().Op}), "source op with 1 inputs"},
		{"no operation", define(t, source(), &pb.Op{Inputs: []*pb.Input{{Digest: "#0"}}}), "invalid nil op"},
		{"no meta", define(t, source(), execOp(func(_ *pb.Op, e *pb.ExecOp) { e.Meta = nil })), "no meta"},
		{"no args", define(t, source(), execOp(func(_ *pb.Op, e *pb.ExecOp) { e.Meta.Args = nil })), "no args"},
		{"no mounts", define(t, source(), execOp(func(_ *pb.Op, e *pb.ExecOp) { e.Mounts = nil })), "no mounts"},
		{"no root", define(t, source(), execOp(func(_ *pb.Op, e *pb.ExecOp) { e.Mounts[0].Dest = "/x" })), "no rootfs"},
		{"mount input", define(t, source(), execOp(func(_ *pb.Op, e *pb.ExecOp) { e.Mounts[0].Input = 1 })), "mount input 1"},
		{"mount output", define(t, source(), execOp(func(_ *pb.Op, e *pb.ExecOp) { e.Mounts[0].Output = 1 << 40 })), "mount output"},
		{"mount output twice", define(t, source(), execOp(func(_ *pb.Op, e *pb.ExecOp) {
			e.Mounts[0].Output = 0
			e.Mounts = append(e.Mounts, &pb.Mount{Dest: "/x", Input: -1, Output: 0})
		})), "output 0 is that of two mounts"},
		{"security", define(t, source(), execOp(func(_ *pb.Op, e *pb.ExecOp) { e.Security = 2 })), "invalid security mode 2"},
		{"network", define(t, source(), execOp(func(_ *pb.Op, e *pb.ExecOp) { e.Network = 3 })), "invalid network mode 3"},
		{"no actions", define(t, source(), fileOp()), "no actions"},
		{"nil action", define(t, source(), fileOp(&pb.FileAction{})), "nil file action"},
		{"action of a later one", define(t, source(), fileOp(&pb.FileAction{Input: 1, SecondaryInput: -1, Action: mkdir})), "inputs 1 and -1"},
		{"merge", define(t, source(), &pb.Op{Inputs: []*pb.Input{{Digest: "#0"}}, Op: &pb.Op_Merge{Merge: &pb.MergeOp{}}}), "0 inner inputs and 1 outer"},
		{"diff", define(t, source(), &pb.Op{Inputs: []*pb.Input{{Digest: "#0"}}, Op: &pb.Op_Diff{Diff: &pb.DiffOp{}}}), "nil lower or upper"},
		{"build", define(t, source(), &pb.Op{Inputs: []*pb.Input{{Digest: "#0"}}, Op: &pb.Op_Build{Build: &pb.BuildOp{Builder: -1}}}), "no llb definition"},
		{"passthrough", define(t, source(), &pb.Op{Inputs: []*pb.Input{{Digest: "#0"}}, Op: &pb.Op_Passthrough{Passthrough: &pb.PassthroughOp{Id: "x", Outputs: []int64{1}}}}), "input index 1"},
		{"location", &pb.Definition{Def: define(t, source()).Def, Source: &pb.Source{Locations: map[string]*pb.Locations{"x": {Locations: []*pb.Location{{SourceIndex: 1}}}}}}, "source index 1"},
	} {
		if _, err := Parse(c.def); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// What the result does not need is not in the graph.
func TestUnused(t *testing.T) {
	a, b := source(), &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "local://unused"}}}
	def := define(t, a, b, execOp(func(*pb.Op, *pb.ExecOp) {}))
	g, err := Parse(def)
	if err != nil || len(g.Vertices) != 2 {
		t.Errorf("%v\n%v", err, g)
	}
}

// A chain may be deep.
func TestDeep(t *testing.T) {
	def := &pb.Definition{}
	data, _ := source().Marshal()
	for range maxLength - 1 {
		def.Def = append(def.Def, data)
		op := execOp(func(op *pb.Op, _ *pb.ExecOp) { op.Inputs[0].Digest = digest.FromBytes(data).String() })
		data, _ = op.Marshal()
	}
	def.Def = append(def.Def, data)
	end, _ := (&pb.Op{Inputs: []*pb.Input{{Digest: digest.FromBytes(data).String()}}}).Marshal()
	def.Def = append(def.Def, end)
	if g, err := Parse(def); err != nil || len(g.Vertices) != maxLength {
		t.Errorf("%v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, def := range []*pb.Definition{marshal(f, program()), define(f, source(), execOp(func(*pb.Op, *pb.ExecOp) {}))} {
		data, err := def.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		def := &pb.Definition{}
		if def.Unmarshal(data) != nil {
			return
		}
		g, err := Parse(def)
		if err != nil {
			return
		}
		_ = g.String()
		for _, v := range g.Vertices {
			for _, in := range v.Inputs {
				if from := g.Vertex(in.Vertex); from == nil || in.Index >= from.Outputs {
					t.Fatalf("edge to nothing: %v", in)
				}
			}
		}
	})
}

// TestSecretHasNoOutput: clients number the output of a secret 0, as that of the root; it has none.
func TestSecretHasNoOutput(t *testing.T) {
	_, err := Parse(define(t, source(), execOp(func(_ *pb.Op, e *pb.ExecOp) {
		e.Mounts[0].Output = 0
		for _, kind := range []pb.MountType{pb.MountType_SECRET, pb.MountType_SSH} {
			e.Mounts = append(e.Mounts, &pb.Mount{Dest: "/x", Input: -1, Output: 0, MountType: kind})
		}
	})))
	if err != nil {
		t.Error(err)
	}
}
