package graph

import (
	"github.com/moby/buildkit/solver/pb"
)

// maxOutputs bounds the outputs of one operation, which are numbered by the client.
const maxOutputs = 10_000

// check refuses an operation that whoever runs it would stumble over: what is nil, and numbers of inputs and outputs
// that do not exist.
func check(op *pb.Op) error {
	inputs := int64(len(op.Inputs))
	switch o := op.Op.(type) {
	case *pb.Op_Source:
		return checkSource(o.Source, inputs)
	case *pb.Op_Exec:
		return checkExec(o.Exec, inputs)
	case *pb.Op_File:
		return checkFile(o.File, inputs)
	case *pb.Op_Merge:
		return checkMerge(o.Merge, inputs)
	case *pb.Op_Diff:
		return checkDiff(o.Diff, inputs)
	case *pb.Op_Build:
		return checkBuild(o.Build, inputs)
	case *pb.Op_Passthrough:
		return checkPassthrough(o.Passthrough, inputs)
	}
	return invalid("invalid nil op")
}

func checkSource(s *pb.SourceOp, inputs int64) error {
	if s == nil {
		return invalid("invalid nil source op")
	}
	if inputs != 0 {
		return invalid("invalid source op with %d inputs", inputs)
	}
	return nil
}

func checkExec(e *pb.ExecOp, inputs int64) error {
	switch {
	case e == nil:
		return invalid("invalid nil exec op")
	case e.Meta == nil:
		return invalid("invalid exec op with no meta")
	case len(e.Meta.Args) == 0:
		return invalid("invalid exec op with no args")
	case len(e.Mounts) == 0:
		return invalid("invalid exec op with no mounts")
	case len(e.Mounts) > maxMounts:
		return invalid("invalid exec op with %d mounts: more than %d", len(e.Mounts), maxMounts)
	}
	if err := pb.ValidateSecurityMode(e.Security); err != nil {
		return invalid("%v", err)
	}
	if _, known := pb.NetMode_name[int32(e.Network)]; !known {
		return invalid("invalid network mode %d", e.Network)
	}
	root, outs := false, map[int64]bool{}
	for _, m := range e.Mounts {
		if m == nil {
			return invalid("invalid exec op with a nil mount")
		}
		root = root || m.Dest == pb.RootMount
		if m.Input < int64(pb.Empty) || m.Input >= inputs {
			return invalid("invalid exec op mount input %d", m.Input)
		}
		if m.Output < int64(pb.SkipOutput) || m.Output > maxOutputs {
			return invalid("invalid exec op mount output %d", m.Output)
		}
		if m.MountType != pb.MountType_BIND {
			continue // secrets and agents come with the number 0, which means nothing
		}
		if outs[m.Output] && m.Output != int64(pb.SkipOutput) {
			return invalid("invalid exec op: output %d is that of two mounts", m.Output)
		}
		outs[m.Output] = true
	}
	if !root {
		return invalid("invalid exec op with no rootfs")
	}
	for _, s := range e.Secretenv {
		if s == nil {
			return invalid("invalid exec op with a nil secret")
		}
	}
	for _, d := range e.CdiDevices {
		if d == nil {
			return invalid("invalid exec op with a nil device")
		}
	}
	return nil
}

func checkFile(f *pb.FileOp, inputs int64) error {
	if f == nil {
		return invalid("invalid nil file op")
	}
	if len(f.Actions) == 0 {
		return invalid("invalid file op with no actions")
	}
	for i, a := range f.Actions {
		if a == nil || nilAction(a) {
			return invalid("invalid nil file action")
		}
		// What an action works on is an input of the operation or the result of an action before it.
		most := inputs + int64(i)
		if a.Input < int64(pb.Empty) || a.Input >= most || a.SecondaryInput < int64(pb.Empty) || a.SecondaryInput >= most {
			return invalid("invalid file action with inputs %d and %d", a.Input, a.SecondaryInput)
		}
		if a.Output < int64(pb.SkipOutput) || a.Output > maxOutputs {
			return invalid("invalid file action output %d", a.Output)
		}
	}
	return nil
}

func nilAction(a *pb.FileAction) bool {
	switch a := a.Action.(type) {
	case *pb.FileAction_Copy:
		return a.Copy == nil
	case *pb.FileAction_Mkfile:
		return a.Mkfile == nil
	case *pb.FileAction_Mkdir:
		return a.Mkdir == nil
	case *pb.FileAction_Rm:
		return a.Rm == nil
	case *pb.FileAction_Symlink:
		return a.Symlink == nil
	}
	return true
}

func checkMerge(m *pb.MergeOp, inputs int64) error {
	if m == nil {
		return invalid("invalid nil merge op")
	}
	if int64(len(m.Inputs)) != inputs {
		return invalid("invalid merge op with %d inner inputs and %d outer inputs", len(m.Inputs), inputs)
	}
	for _, in := range m.Inputs {
		if in == nil || in.Input < 0 || in.Input >= inputs {
			return invalid("invalid merge input %d", in.GetInput())
		}
	}
	return nil
}

func checkDiff(d *pb.DiffOp, inputs int64) error {
	if d == nil {
		return invalid("invalid nil diff op")
	}
	if d.Lower == nil || d.Upper == nil {
		return invalid("invalid diff op with nil lower or upper input")
	}
	var inner int64
	for _, in := range []int64{d.Lower.Input, d.Upper.Input} {
		if in == int64(pb.Empty) {
			continue
		}
		inner++
		if in < 0 || in >= inputs {
			return invalid("invalid diff input index %d", in)
		}
	}
	if inner != inputs {
		return invalid("invalid diff op with %d inner inputs and %d outer inputs", inner, inputs)
	}
	return nil
}

func checkBuild(b *pb.BuildOp, inputs int64) error {
	if b == nil {
		return invalid("invalid nil build op")
	}
	if b.Builder != int64(pb.LLBBuilder) {
		return invalid("only LLB builder is currently allowed")
	}
	in, ok := b.Inputs[pb.LLBDefinitionInput]
	if !ok || in == nil {
		return invalid("no llb definition input %s found", pb.LLBDefinitionInput)
	}
	if in.Input < 0 || in.Input >= inputs {
		return invalid("invalid index %d", in.Input)
	}
	return nil
}

func checkPassthrough(p *pb.PassthroughOp, inputs int64) error {
	switch {
	case p == nil:
		return invalid("invalid nil passthrough op")
	case p.Id == "":
		return invalid("invalid passthrough op with no id")
	case len(p.Outputs) == 0 || len(p.Outputs) > maxOutputs:
		return invalid("invalid passthrough op with %d outputs", len(p.Outputs))
	}
	for _, in := range p.Outputs {
		if in < 0 || in >= inputs {
			return invalid("invalid passthrough output input index %d", in)
		}
	}
	return nil
}

// outputs tells how many outputs a checked operation has.
func outputs(op *pb.Op) int {
	n := int64(1)
	switch o := op.Op.(type) {
	case *pb.Op_Exec:
		n = 0
		for _, m := range o.Exec.Mounts {
			n = max(n, m.Output+1)
		}
	case *pb.Op_File:
		n = 0
		for _, a := range o.File.Actions {
			n = max(n, a.Output+1)
		}
	case *pb.Op_Passthrough:
		n = int64(len(o.Passthrough.Outputs))
	}
	return int(n)
}
