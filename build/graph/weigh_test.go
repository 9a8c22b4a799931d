package graph

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/encoding/protowire"

	"berth/base/fault"
)

// field writes a field of bytes.
func field(number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

// A few megabytes on the wire do not become gigabytes in memory.
func TestWeight(t *testing.T) {
	const size = 8 << 20
	empty := func(n protowire.Number) []byte { return bytes.Repeat(field(n, nil), size/2) }
	end := field(1, field(1, []byte(digest.FromString("x"))))
	for name, def := range map[string][]byte{
		"inputs":     append(field(1, empty(1)), field(1, end)...),
		"mounts":     append(field(1, field(2, empty(2))), field(1, end)...),
		"actions":    append(field(1, field(4, empty(2))), field(1, end)...),
		"outputs":    append(field(1, field(8, field(2, make([]byte, size)))), field(1, end)...),
		"operations": empty(1),
		"metadata": func() []byte {
			var b []byte
			for i := range size / 16 {
				b = append(b, field(2, field(1, fmt.Appendf(nil, "%x", i)))...)
			}
			return b
		}(),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d, err := Decode(def)
		if err == nil {
			_, err = Parse(d)
		}
		runtime.ReadMemStats(&after)
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
			t.Errorf("%s: %d MB for %d", name, used>>20, len(def)>>20)
		}

		// And where the outer message was decoded by others.
		d = &pb.Definition{}
		if name == "operations" || name == "metadata" || d.Unmarshal(def) != nil {
			continue
		}
		runtime.ReadMemStats(&before)
		if _, err = Parse(d); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s, parsed: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
			t.Errorf("%s, parsed: %d MB for %d", name, used>>20, len(def)>>20)
		}
	}
}

// What is honest weighs what it says, and is far from the bound.
func TestWeightOfPrograms(t *testing.T) {
	def := marshal(t, program())
	g, err := Parse(def)
	if err != nil {
		t.Fatal(err)
	}
	if g.Weight < 100 || g.Weight > 1000 {
		t.Errorf("%d", g.Weight)
	}
	data, err := def.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Decode(data); err != nil || len(again.Def) != len(def.Def) {
		t.Errorf("%v", err)
	}
}

func TestNotesAreBounded(t *testing.T) {
	def := define(t, source())
	last := string(digest.FromBytes(def.Def[0]))
	many := map[string]string{}
	for i := range maxNotes + 1 {
		many[fmt.Sprint(i)] = "x"
	}
	for name, change := range map[string]func(*pb.Definition){
		"descriptions": func(d *pb.Definition) { d.Metadata = map[string]*pb.OpMetadata{last: {Description: many}} },
		"metadata": func(d *pb.Definition) {
			d.Metadata = map[string]*pb.OpMetadata{}
			for i := range maxOps + 1 {
				d.Metadata[fmt.Sprint(i)] = nil
			}
		},
		"locations": func(d *pb.Definition) {
			d.Source = &pb.Source{Locations: map[string]*pb.Locations{last: {Locations: make([]*pb.Location, maxNotes+1)}}}
		},
	} {
		d := def.CloneVT()
		change(d)
		if _, err := Parse(d); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "invalid LLB with") {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := define(t, source(), execOp(func(_ *pb.Op, e *pb.ExecOp) {
		for i := range maxMounts {
			e.Mounts = append(e.Mounts, &pb.Mount{Dest: fmt.Sprint("/", i), Input: -1, Output: -1})
		}
	}))
	if _, err := Parse(d); !fault.Is(err, fault.Invalid) {
		t.Errorf("mounts: %v", err)
	}
}

// Operations that depend on each other are as many as whoever evaluates them can wait for; side by side there may be more.
func TestLength(t *testing.T) {
	merge := func(in string) *pb.Op {
		return &pb.Op{Inputs: []*pb.Input{{Digest: in}}, Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{Input: 0}}}}}
	}
	chain := func(n int) *pb.Definition {
		def := &pb.Definition{}
		add := func(op *pb.Op) string {
			data, err := op.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			def.Def = append(def.Def, data)
			return string(digest.FromBytes(data))
		}
		last := add(source())
		for range n - 1 {
			last = add(merge(last))
		}
		add(&pb.Op{Inputs: []*pb.Input{{Digest: last}}})
		return def
	}
	if g, err := Parse(chain(maxLength)); err != nil || len(g.Vertices) != maxLength {
		t.Errorf("%v", err)
	}
	if _, err := Parse(chain(maxLength + 1)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "depend on each other") {
		t.Errorf("%v", err)
	}
}
