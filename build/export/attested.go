package export

import (
	"context"
	"strconv"
	"time"

	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/result"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/build/attest"
	"berth/kernel/tree"
)

// Provenance is the attestation that says where a result comes from. facts is called when the build has ended.
func Provenance(o attest.ProvenanceOptions, facts func(ctx context.Context) (*attest.Facts, error)) Attestation {
	return Attestation{
		Kind: gatewaypb.AttestationKind_InToto, Path: o.Filename,
		Metadata: map[string][]byte{
			result.AttestationReasonKey:     []byte(result.AttestationReasonProvenance),
			result.AttestationInlineOnlyKey: []byte(strconv.FormatBool(o.InlineOnly)),
		},
		InToto: result.InTotoAttestation{PredicateType: o.PredicateType()},
		ContentFunc: func(ctx context.Context) ([]byte, error) {
			f, err := facts(ctx)
			if err != nil {
				return nil, err
			}
			f.Blobs(attested(ctx).blobs)
			_, content, err := f.Predicate(o)
			return content, err
		},
	}
}

// subject is what attestations are told of the result that they are about to attest.
type subject struct {
	blobs map[digest.Digest]ocispec.Descriptor // of an image: what its layers became
	epoch *time.Time                           // nothing in the result is later, and so no document of it
}

type subjectKey struct{}

// about lets attestations know what they attest.
func about(ctx context.Context, s subject) context.Context {
	return context.WithValue(ctx, subjectKey{}, s)
}

func attested(ctx context.Context) subject {
	s, _ := ctx.Value(subjectKey{}).(subject)
	return s
}

// subject is a platform's image.
func (p *part) subject() subject {
	s := subject{blobs: map[digest.Digest]ocispec.Descriptor{}, epoch: p.epoch}
	for i, b := range p.layers {
		s.blobs[p.chain[i]] = b.desc
	}
	return s
}

// SBOM is the attestation that says what is in a tree, found by a scan of our own. nil is the empty tree.
func SBOM(ref Ref) Attestation {
	return Attestation{
		Kind: gatewaypb.AttestationKind_InToto, Path: "sbom.spdx.json",
		Metadata: map[string][]byte{
			result.AttestationReasonKey: []byte(result.AttestationReasonSBOM),
			result.AttestationSBOMCore:  []byte("sbom"),
		},
		InToto: result.InTotoAttestation{PredicateType: attest.SPDX},
		ContentFunc: func(ctx context.Context) (content []byte, err error) {
			at := time.Now()
			if epoch := attested(ctx).epoch; epoch != nil {
				at = *epoch
			}
			if ref == nil {
				return attest.Document(nil, at)
			}
			err = viewRef(ctx, ref, func(root *tree.Dir) error {
				packages, err := attest.Scan(ctx, root)
				if err != nil {
					return err
				}
				content, err = attest.Document(packages, at)
				return err
			})
			return content, err
		},
	}
}
