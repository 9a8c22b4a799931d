package graph

import (
	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"berth/base/fault"
)

// MaxWeight bounds the parts of a definition: every field of every message in it. A part of two bytes on the wire becomes a
// hundred in memory, so what is read is weighed before it is decoded.
const MaxWeight = 2_000_000

// maxNesting bounds messages in messages. Those of a definition nest seven deep.
const maxNesting = 32

var (
	opType         = (&pb.Op{}).ProtoReflect().Descriptor()
	definitionType = (&pb.Definition{}).ProtoReflect().Descriptor()
)

// Decode reads a definition that nobody has looked at yet: the content of a file. Parse checks it.
func Decode(data []byte) (*pb.Definition, error) {
	s := scale{left: MaxWeight}
	if err := s.weigh(definitionType, data, 0); err != nil {
		return nil, err
	}
	def := &pb.Definition{}
	if err := def.Unmarshal(data); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "not a definition")
	}
	return def, nil
}

// scale weighs messages by their bytes.
type scale struct{ left int }

func (s *scale) take(n int) error {
	if s.left -= n; s.left < 0 {
		return invalid("invalid LLB with more than %d fields", MaxWeight)
	}
	return nil
}

// weigh takes the parts of a message. What is no message at all is for whoever decodes it to tell.
func (s *scale) weigh(t protoreflect.MessageDescriptor, data []byte, nesting int) error {
	if nesting > maxNesting {
		return invalid("invalid LLB with messages nested more than %d deep", maxNesting)
	}
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return nil
		}
		data = data[n:]
		if err := s.take(1); err != nil {
			return err
		}
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
				return nil
			}
			data = data[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return nil
		}
		data = data[n:]
		f := t.Fields().ByNumber(number)
		switch {
		case f == nil:
		case f.Message() != nil:
			if f.IsMap() {
				if err := s.take(3); err != nil { // an entry of a map takes more room than a message in a list
					return err
				}
			}
			if err := s.weigh(f.Message(), value, nesting+1); err != nil {
				return err
			}
		case f.IsList() && f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.BytesKind:
			if err := s.take(len(value)); err != nil { // numbers, of one byte and more each
				return err
			}
		}
	}
	return nil
}
