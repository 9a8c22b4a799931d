package build

import (
	"fmt"
	"testing"

	provenance "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/moby/buildkit/solver/pb"

	"berth/build/frontend"
)

// count counts requests that are told.
func count(told map[string]*provenance.RequestProvenance) int {
	n := len(told)
	for _, r := range told {
		n += count(r.Request.Inputs)
	}
	return n
}

// What frontends gave for their results may be a circle.
func TestInputsThatMakeEachOther(t *testing.T) {
	x, y := &pb.Definition{Def: [][]byte{{1}}}, &pb.Definition{Def: [][]byte{{2}}}
	a := &frontend.Call{Frontend: "a", Inputs: map[string]*pb.Definition{"in": x}}
	b := &frontend.Call{Frontend: "b", Inputs: map[string]*pb.Definition{"in": y}}
	made := map[*pb.Definition][]*frontend.Call{x: {b}, y: {a}}
	tell := &teller{makers: func(d *pb.Definition) []*frontend.Call { return made[d] }, left: maxRequests}
	told := tell.inputs(a)
	if count(told) != 1 || told["in"].Request.Frontend != "b" {
		t.Errorf("%v", told)
	}
}

// Two inputs at each of many levels are more ways than there is memory.
func TestInputsOfManyWays(t *testing.T) {
	made := map[*pb.Definition][]*frontend.Call{}
	last := &frontend.Call{}
	for i := range 60 {
		d := &pb.Definition{}
		made[d] = []*frontend.Call{last}
		last = &frontend.Call{Frontend: fmt.Sprint(i), Inputs: map[string]*pb.Definition{"a": d, "b": d}}
	}
	tell := &teller{makers: func(d *pb.Definition) []*frontend.Call { return made[d] }, left: maxRequests}
	if n := count(tell.inputs(last)); n != maxRequests {
		t.Errorf("%d requests", n)
	}
}
