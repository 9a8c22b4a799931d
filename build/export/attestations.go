package export

import (
	"context"
	"encoding/json"
	"io"
	"path"
	"slices"
	"strings"

	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/result"
	attestationtypes "github.com/moby/buildkit/util/attestation"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/attest"
	"berth/image"
	"berth/kernel/tree"
)

// attestation is the manifest that attests another one, with its parts.
type attestation struct {
	manifest   *image.Attached
	config     *image.Attached
	statements []*image.Attached
}

// all gives the documents.
func (a *attestation) all() []image.Attached {
	out := []image.Attached{*a.manifest, *a.config}
	for _, s := range a.statements {
		out = append(out, *s)
	}
	return out
}

// What a statement says that only whoever runs the build may say.
const provenancePrefix = "https://slsa.dev/provenance/"

// Bounds of what is read from a frontend's tree.
const (
	attestationMax  = 16 << 20 // bytes of one document: what the image store keeps
	attestationsMax = 1000     // files of one bundle
)

const attestationArtifact = "application/vnd.docker.attestation.manifest.v1+json"

// attest makes the attestation manifests of all platforms.
func (e *Exporter) attest(ctx context.Context, m *made) error {
	for _, p := range m.parts {
		if len(p.attested) == 0 {
			continue
		}
		if !m.o.oci {
			return fault.New(fault.Invalid, `cannot export attestations with "oci-mediatypes=false"`)
		}
		if err := m.manifest(p); err != nil { // whose digest is attested
			return err
		}
		list, err := e.read(about(ctx, p.subject()), p.attested)
		if err != nil {
			return err
		}
		for i := range list {
			list[i] = supplement(list[i], p, e.cfg.Images.Layers())
		}
		var subjects []attest.Subject
		for _, n := range m.names {
			s, err := attest.ImageSubject(n, &p.platform.Platform, p.manifest.Digest)
			if err != nil {
				return err
			}
			subjects = append(subjects, s)
		}
		if p.attest, err = m.attestation(p.manifest, list, subjects); err != nil {
			return err
		}
	}
	return nil
}

// said is one attestation that has been read.
type said struct {
	path          string
	predicateType string
	predicate     []byte // JSON
	subjects      []result.InTotoSubject
	meta          map[string][]byte
}

// read reads attestations, those in bundles too. The core of a bill of materials comes first.
func (e *Exporter) read(ctx context.Context, list []Attestation) (out []said, err error) {
	for _, a := range list {
		switch a.Kind {
		case gatewaypb.AttestationKind_InToto:
			if a.Path == "" {
				return nil, fault.New(fault.Invalid, "attestation does not have set path")
			}
			if strings.HasPrefix(a.InToto.PredicateType, provenancePrefix) && a.ContentFunc == nil {
				return nil, fault.New(fault.Invalid, "frontend may not set provenance attestations")
			}
			s := said{path: a.Path, predicateType: a.InToto.PredicateType, subjects: a.InToto.Subjects, meta: a.Metadata}
			if s.predicate, err = readOne(ctx, a); err != nil {
				return nil, err
			}
			out = append(out, s)
		case gatewaypb.AttestationKind_Bundle:
			more, err := readBundle(ctx, a)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		default:
			return nil, fault.New(fault.Invalid, "unknown attestation kind %d", a.Kind)
		}
	}
	core := func(s said) bool {
		name, ok := s.meta[result.AttestationSBOMCore]
		file, _, _ := strings.Cut(path.Base(s.path), ".")
		return ok && file == string(name)
	}
	slices.SortStableFunc(out, func(a, b said) int {
		switch x, y := core(a), core(b); {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	})
	return out, nil
}

// readOne reads the predicate of one attestation.
func readOne(ctx context.Context, a Attestation) (raw []byte, err error) {
	switch {
	case a.ContentFunc != nil:
		raw, err = a.ContentFunc(ctx)
	case a.Ref != nil:
		err = viewRef(ctx, a.Ref, func(root *tree.Dir) error {
			raw, err = readFile(root, a.Path)
			return err
		})
	default:
		return nil, fault.New(fault.Invalid, "attestation does not have available content")
	}
	if err != nil {
		return nil, fault.In(err, "cannot read in-toto attestation %s", a.Path)
	}
	if len(raw) == 0 {
		raw = []byte("null")
	}
	if !json.Valid(raw) {
		return nil, fault.New(fault.Invalid, "in-toto attestation %s is no JSON", a.Path)
	}
	return raw, nil
}

// readBundle reads the statements in a directory.
func readBundle(ctx context.Context, a Attestation) (out []said, err error) {
	if a.ContentFunc != nil {
		return nil, fault.New(fault.Invalid, "attestation bundle cannot have callback")
	}
	if a.Ref == nil {
		return nil, fault.New(fault.Invalid, "no ref provided for attestation bundle")
	}
	err = viewRef(ctx, a.Ref, func(root *tree.Dir) error {
		dir, _, err := root.Open(a.Path)
		if err != nil {
			return err
		}
		defer dir.Close()
		names, err := dir.Names()
		if err != nil {
			return err
		}
		if len(names) > attestationsMax {
			return fault.New(fault.Invalid, "attestation bundle has more than %d files", attestationsMax)
		}
		slices.Sort(names)
		for _, name := range names {
			raw, err := readFile(root, path.Join(a.Path, name))
			if err != nil {
				return fault.In(err, "%s", name)
			}
			var st attest.Statement
			if err := json.Unmarshal(raw, &st); err != nil {
				return fault.Wrap(fault.Invalid, err, "cannot decode in-toto statement %s", name)
			}
			if a.InToto.PredicateType != "" && st.PredicateType != a.InToto.PredicateType {
				return fault.New(fault.Invalid, "bundle entry %s does not match required predicate type %s", st.PredicateType, a.InToto.PredicateType)
			}
			if strings.HasPrefix(st.PredicateType, provenancePrefix) {
				return fault.New(fault.Invalid, "frontend may not bundle provenance attestations")
			}
			s := said{path: path.Join(a.Path, name), predicateType: st.PredicateType, predicate: st.Predicate, meta: a.Metadata}
			for _, sub := range st.Subject {
				s.subjects = append(s.subjects, result.InTotoSubject{Kind: gatewaypb.InTotoSubjectKind_Raw, Name: sub.Name, Digest: result.FromDigestMap(sub.Digest)})
			}
			out = append(out, s)
		}
		return nil
	})
	return out, fault.In(err, "attestation bundle %s", a.Path)
}

func viewRef(ctx context.Context, ref Ref, f func(root *tree.Dir) error) error {
	snap, err := ref.Result(ctx)
	if err != nil {
		return err
	}
	if snap == nil {
		return fault.New(fault.NotFound, "the tree is empty")
	}
	if err := snap.Ready(ctx); err != nil {
		return err
	}
	return snap.View(ctx, f)
}

func readFile(root *tree.Dir, name string) ([]byte, error) {
	f, err := root.OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, attestationMax+1))
	if err == nil && len(raw) > attestationMax {
		err = fault.New(fault.Invalid, "%s exceeds %d bytes", name, attestationMax)
	}
	return raw, err
}

// statement joins what is said with its subjects: those that it names, and where it speaks of the result, the result's.
func (s said) statement(own []attest.Subject) attest.Statement {
	st := attest.Statement{Type: attest.StatementType, PredicateType: s.predicateType, Subject: []attest.Subject{}, Predicate: s.predicate}
	subjects := s.subjects
	if len(subjects) == 0 {
		subjects = []result.InTotoSubject{{Kind: gatewaypb.InTotoSubjectKind_Self}}
	}
	for _, sub := range subjects {
		name := sub.Name
		if name == "" {
			name = "_"
		}
		if sub.Kind == gatewaypb.InTotoSubjectKind_Raw {
			st.Subject = append(st.Subject, attest.Subject{Name: name, Digest: result.ToDigestMap(sub.Digest...)})
			continue
		}
		for _, o := range own {
			st.Subject = append(st.Subject, o)
			if name != "_" {
				st.Subject = append(st.Subject, attest.Subject{Name: name, Digest: o.Digest})
			}
		}
	}
	return st
}

// attestation makes the manifest that attests another one.
func (m *made) attestation(target *image.Attached, list []said, subjects []attest.Subject) (*attestation, error) {
	a := &attestation{}
	var layers []ocispec.Descriptor
	var diffIDs []digest.Digest
	for _, s := range list {
		raw, err := json.Marshal(s.statement(subjects))
		if err != nil {
			return nil, err
		}
		doc := attached(attest.PayloadType, raw)
		doc.Annotations = map[string]string{"in-toto.io/predicate-type": s.predicateType}
		a.statements = append(a.statements, doc)
		layers = append(layers, doc.OCI())
		diffIDs = append(diffIDs, doc.Digest)
	}
	artifact := m.o.artifact == nil || *m.o.artifact
	doc := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType(m.o.oci), Layers: layers}
	if artifact {
		a.config = attached(ocispec.MediaTypeEmptyJSON, []byte("{}"))
		doc.Config = ocispec.DescriptorEmptyJSON
		doc.ArtifactType = attestationArtifact
		doc.Subject = &ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	} else {
		img := ocispec.Image{Platform: unknownPlatform(), RootFS: ocispec.RootFS{Type: "layers", DiffIDs: diffIDs}}
		raw, err := json.Marshal(img)
		if err != nil {
			return nil, err
		}
		a.config = attached(configType(m.o.oci), raw)
		doc.Config = a.config.OCI()
	}
	var err error
	if a.manifest, err = document(doc.MediaType, doc); err != nil {
		return nil, err
	}
	a.manifest.Platform = &image.Platform{OS: "unknown", Architecture: "unknown"}
	a.manifest.Annotations = map[string]string{
		attestationtypes.DockerAnnotationReferenceType:   attestationtypes.DockerAnnotationReferenceTypeDefault,
		attestationtypes.DockerAnnotationReferenceDigest: string(target.Digest),
	}
	return a, nil
}

func unknownPlatform() ocispec.Platform {
	return ocispec.Platform{Architecture: "unknown", OS: "unknown"}
}
