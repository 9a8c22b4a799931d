package solver

import (
	"crypto/rand"
	"maps"
	"slices"

	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"
)

// nameOf names a definition by all that it says: two of the same name give the same graph.
func nameOf(def *pb.Definition) digest.Digest {
	k := newKey("definition")
	for _, op := range def.GetDef() {
		k.add("op")
		k.h.Write([]byte(digest.FromBytes(op)))
	}
	for _, name := range slices.Sorted(maps.Keys(def.GetMetadata())) {
		k.add("metadata")
		k.add(name)
		k.message(def.Metadata[name])
	}
	if def.GetSource() != nil {
		k.add("source")
		k.message(def.Source)
	}
	return k.digest()
}

// nameOfPolicies names policies; none have no name.
func nameOfPolicies(list []*spb.Policy) digest.Digest {
	if len(list) == 0 {
		return ""
	}
	k := newKey("policies")
	for _, p := range list {
		k.message(p)
	}
	return k.digest()
}

// message adds a message as the library that is linked in writes it: names made of it hold within this process only.
func (k keyHash) message(m proto.Message) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil { // it holds text that is no UTF-8, and is equal to nothing
		data = []byte(rand.Text())
	}
	k.add(string(data))
}
