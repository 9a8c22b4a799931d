package http

import (
	"context"
	"crypto"
	_ "crypto/sha512" // SHA384 and SHA512
	"io"
	"slices"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/session"
)

// maxSuffix bounds what a frontend may have hashed behind a file, in bytes.
const maxSuffix = 4 << 10

// ResolveSourceMetadata tells a frontend what is at an address now.
func (s *Source) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt, g session.Group) (*sourceresolver.MetaResponse, error) {
	a, err := parse(op.GetIdentifier(), op.GetAttrs())
	if err != nil {
		return nil, err
	}
	var ask *sourceresolver.ResolveHTTPChecksumRequest
	if opt.HTTPOpt != nil {
		ask = opt.HTTPOpt.ChecksumReq
	}
	var alg crypto.Hash
	if ask != nil {
		if alg, err = hashOf(ask); err != nil {
			return nil, err
		}
	}
	f, kept, err := s.pin(ctx, a, g, nil, ask != nil || a.signature != nil)
	if err != nil {
		return nil, err
	}
	if !kept {
		defer f.close()
	}
	resp := &sourceresolver.ResolveHTTPResponse{Digest: f.digest, Filename: f.name, LastModified: f.modified}
	if ask != nil {
		h := alg.New()
		err := f.read(ctx, func(r io.Reader) error { _, err := io.Copy(h, r); return err })
		if err != nil {
			return nil, err
		}
		h.Write(ask.Suffix)
		resp.ChecksumResponse = &sourceresolver.ResolveHTTPChecksumResponse{
			Digest: digest.NewDigest(algorithms[alg], h).String(), Suffix: slices.Clone(ask.Suffix),
		}
	}
	return &sourceresolver.MetaResponse{Op: op, HTTP: resp}, nil
}

var algorithms = map[crypto.Hash]digest.Algorithm{crypto.SHA256: digest.SHA256, crypto.SHA384: digest.SHA384, crypto.SHA512: digest.SHA512}

func hashOf(ask *sourceresolver.ResolveHTTPChecksumRequest) (crypto.Hash, error) {
	if len(ask.Suffix) > maxSuffix {
		return 0, fault.New(fault.Invalid, "http checksum request suffix exceeds max size %d", maxSuffix)
	}
	switch ask.Algo {
	case sourceresolver.ResolveHTTPChecksumAlgoSHA256:
		return crypto.SHA256, nil
	case sourceresolver.ResolveHTTPChecksumAlgoSHA384:
		return crypto.SHA384, nil
	case sourceresolver.ResolveHTTPChecksumAlgoSHA512:
		return crypto.SHA512, nil
	}
	return 0, fault.New(fault.Invalid, "unsupported checksum algorithm %d", ask.Algo)
}
