package frontend

import (
	"slices"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
)

// Producers remember which call of a frontend gave which result, for as long as its build lasts: a result that becomes the input
// of another call is told with what was asked of the first. It is shared by all builds and safe for concurrent use.
type Producers struct {
	mu    sync.Mutex
	calls map[digest.Digest][]*Call // by the vertex that the result's definition ends in
}

// Of gives the calls that made a definition, none where a client wrote it.
func (p *Producers) Of(def *pb.Definition) []*Call {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls[head(def)])
}

func (p *Producers) add(def *pb.Definition, c *Call) (forget func()) {
	d := head(def)
	if p == nil || d == "" {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls == nil {
		p.calls = map[digest.Digest][]*Call{}
	}
	p.calls[d] = append(p.calls[d], c)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		i := slices.Index(p.calls[d], c)
		if p.calls[d] = slices.Delete(p.calls[d], i, i+1); len(p.calls[d]) == 0 {
			delete(p.calls, d)
		}
	}
}

// head is the vertex that a definition ends in, "" for the empty tree.
func head(def *pb.Definition) digest.Digest {
	if def == nil || len(def.Def) == 0 {
		return ""
	}
	var last pb.Op
	if last.UnmarshalVT(def.Def[len(def.Def)-1]) != nil || last.Op != nil || len(last.Inputs) != 1 {
		return ""
	}
	return digest.Digest(last.Inputs[0].Digest)
}
