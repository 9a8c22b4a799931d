package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"

	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/image"
)

// predicateType is the annotation by which BuildKit says what a statement of an attestation is about.
const predicateType = "in-toto.io/predicate-type"

// statementMost bounds what is read of one document of an attestation, in bytes.
const statementMost = 32 << 20

// imageAttestations is GET /images/NAME/attestations: what was said about an image by whoever built it.
func imageAttestations(s *Server, c *call) error {
	if len(c.q["platform"]) > 1 {
		return fault.New(fault.Invalid, "only one platform value is currently supported")
	}
	want, err := c.platform("platform", 55)
	if err != nil {
		return err
	}
	var types []string
	for _, t := range c.q["type"] {
		if t = strings.TrimSpace(t); t != "" {
			types = append(types, t)
		}
	}
	img, err := s.cfg.Images.ResolvePlatform(c.name, stored(want))
	if err != nil {
		return err
	}
	out := []imagetypes.AttestationStatement{}
	if img.Index == nil || img.Manifest == nil {
		return c.json(http.StatusOK, out)
	}
	parts, err := s.cfg.Images.Manifests(c.name)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if p.Kind != image.KindAttestation || p.For != img.Manifest.Digest {
			continue
		}
		some, err := s.statements(c.ctx(), p.Descriptor.Digest, types, c.flag("statement"))
		if err != nil {
			return err
		}
		out = append(out, some...)
	}
	return c.json(http.StatusOK, out)
}

// statements lists those of one attestation manifest, of all types where none is given.
func (s *Server) statements(ctx context.Context, manifest digest.Digest, types []string, whole bool) (out []imagetypes.AttestationStatement, err error) {
	raw, err := s.document(ctx, manifest)
	if err != nil {
		return nil, fault.In(err, "attestation %s", manifest)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "attestation %s is malformed", manifest)
	}
	for _, l := range m.Layers {
		about := l.Annotations[predicateType]
		if about == "" || len(types) > 0 && !slices.Contains(types, about) {
			continue
		}
		one := imagetypes.AttestationStatement{Descriptor: l, PredicateType: about}
		if whole {
			text, err := s.document(ctx, l.Digest)
			switch {
			case fault.Is(err, fault.NotFound):
				return nil, fault.Wrap(fault.NotFound, err, "attestation statement %s is not available locally", l.Digest)
			case err != nil:
				return nil, fault.In(err, "failed to read attestation statement %s", l.Digest)
			case !json.Valid(text):
				return nil, fault.New(fault.Internal, "attestation statement %s is no JSON", l.Digest)
			}
			one.Statement = (*json.RawMessage)(&text)
		}
		out = append(out, one)
	}
	return out, nil
}

// document reads one of an image's documents.
func (s *Server) document(ctx context.Context, d digest.Digest) ([]byte, error) {
	r, size, err := s.cfg.Images.OpenBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > statementMost {
		return nil, fault.New(fault.Invalid, "%s has %d bytes, which is more than a document may have", d, size)
	}
	return io.ReadAll(r)
}
