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
			if blobs, ok := ctx.Value(blobsKey{}).(map[digest.Digest]ocispec.Descriptor); ok {
				f.Blobs(blobs)
			}
			_, content, err := f.Predicate(o)
			return content, err
		},
	}
}

// blobsKey is the key under which the context of an attestation has the blobs of the image that it attests.
type blobsKey struct{}

// withBlobs lets attestations say which blobs steps became.
func withBlobs(ctx context.Context, p *part) context.Context {
	blobs := map[digest.Digest]ocispec.Descriptor{}
	for i, b := range p.layers {
		blobs[p.chain[i]] = b.desc
	}
	return context.WithValue(ctx, blobsKey{}, blobs)
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
			if ref == nil {
				return attest.Document(nil, time.Now())
			}
			err = viewRef(ctx, ref, func(root *tree.Dir) error {
				packages, err := attest.Scan(ctx, root)
				if err != nil {
					return err
				}
				content, err = attest.Document(packages, time.Now())
				return err
			})
			return content, err
		},
	}
}
