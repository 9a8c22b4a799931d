package policy

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
)

// Media types and annotations of cosign and sigstore.
const (
	typeSimple    = "application/vnd.dev.cosign.simplesigning.v1+json"
	typeSigned    = "application/vnd.dev.cosign.artifact.sig.v1+json" // artifact type of a referrer with simple signing layers
	typeBundle    = "application/vnd.dev.sigstore.bundle"             // followed by .v0.3+json or ;version=0.2
	typeInToto    = "application/vnd.in-toto+json"
	predicateSign = "https://sigstore.dev/cosign/sign/v1"

	annotationSignature   = "dev.cosignproject.cosign/signature"
	annotationCertificate = "dev.sigstore.cosign/certificate"
	annotationChain       = "dev.sigstore.cosign/chain"
	annotationBundle      = "dev.sigstore.cosign/bundle"
	annotationStamp       = "dev.sigstore.cosign/rfc3161timestamp"
)

// Bounds on what is read of a source, which anybody may have written to.
const (
	maxSignatures = 64
	maxReferrers  = 256
	maxPayload    = 1 << 20
	maxTag        = 128 // a longer one is none: of a SHA-512 nothing is signed by tag
)

// candidate is a signature as it was found, with nothing of it checked yet.
type candidate struct {
	where     string
	problem   error // why it cannot be read; the rest is empty then
	message   []byte
	payload   []byte // of message: for a DSSE envelope what was signed with its type, else the same
	envelope  bool   // the payload is an in-toto statement, else a simple signing payload
	signature []byte
	cert      *x509.Certificate
	chain     []*x509.Certificate
	entry     *entry
	stamps    [][]byte // RFC 3161 time stamps, responses in DER
}

// find collects the signatures of an image. What cannot be read is a candidate with its problem; a source that cannot
// be asked is an error.
func find(ctx context.Context, src Source, root digest.Digest) ([]candidate, error) {
	f := finder{ctx: ctx, src: src}
	tag := strings.Replace(root.String(), ":", "-", 1) + ".sig"
	if len(tag) <= maxTag {
		if err := f.manifest(tag, tag); err != nil {
			return nil, err
		}
	}
	referrers, err := src.Referrers(ctx, root)
	if err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.NotImplemented) {
		return nil, err
	}
	for i, d := range referrers {
		if i == maxReferrers {
			break
		}
		if !mayHold(d.ArtifactType) {
			continue
		}
		if err := f.manifest(d.Digest.String(), "referrer "+short(d.Digest)); err != nil {
			return nil, err
		}
	}
	return f.found, nil
}

// mayHold reports whether a referrer of the artifact type may hold signatures. Some registries do not tell the type, or tell
// that of the empty configuration; its layers tell then.
func mayHold(artifact string) bool {
	return artifact == typeSigned || strings.HasPrefix(artifact, typeBundle) || artifact == "" || artifact == ocispec.MediaTypeEmptyJSON
}

func short(d digest.Digest) string { return d.String()[:min(len(d), len("sha256:")+12)] }

type finder struct {
	ctx   context.Context
	src   Source
	found []candidate
}

// manifest reads the signatures of a manifest's layers. None is no error: anybody may store what is no signature.
func (f *finder) manifest(reference, where string) error {
	text, err := f.src.Manifest(f.ctx, reference)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		f.found = append(f.found, candidate{where: where, problem: errors.New("it is no manifest")})
		return nil
	}
	for i, layer := range m.Layers {
		simple := layer.MediaType == typeSimple
		if len(f.found) == maxSignatures || !simple && !strings.HasPrefix(layer.MediaType, typeBundle) {
			continue
		}
		at := where
		if len(m.Layers) > 1 {
			at = fmt.Sprintf("%s signature %d", where, i+1)
		}
		text, err := f.blob(layer)
		switch {
		case fault.Is(err, fault.NotFound), fault.Is(err, fault.Invalid):
			f.found = append(f.found, candidate{where: at, problem: err})
			continue
		case err != nil:
			return err
		}
		var c candidate
		if simple {
			c, err = readSimple(text, layer.Annotations)
		} else {
			c, err = readBundle(text)
		}
		if err != nil {
			c = candidate{problem: err}
		}
		c.where = at
		f.found = append(f.found, c)
	}
	return nil
}

// blob reads a layer and checks that it is the one that is named.
func (f *finder) blob(d ocispec.Descriptor) ([]byte, error) {
	if d.Size > maxPayload || d.Size < 0 || d.Digest.Validate() != nil {
		return nil, fault.New(fault.Invalid, "its layer is not one of a signature")
	}
	r, err := f.src.Blob(f.ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, d.Size+1))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read a signature")
	}
	if d.Digest.Algorithm().FromBytes(text) != d.Digest {
		return nil, fault.New(fault.Invalid, "its layer has another digest than it says")
	}
	return text, nil
}

// readSimple reads a simple signing payload, whose signature stands in annotations.
func readSimple(payload []byte, annotations map[string]string) (candidate, error) {
	c := candidate{message: payload, payload: payload}
	var err error
	if c.signature, err = base64.StdEncoding.DecodeString(annotations[annotationSignature]); err != nil || len(c.signature) == 0 {
		return c, errors.New("it has no signature in base64")
	}
	if text := annotations[annotationCertificate]; text != "" {
		certs, err := certificates([]byte(text))
		if err != nil || len(certs) != 1 {
			return c, errors.New("its certificate cannot be read")
		}
		c.cert = certs[0]
		if c.chain, err = certificates([]byte(annotations[annotationChain])); err != nil {
			return c, errors.New("its certificate's chain cannot be read")
		}
	}
	if text := annotations[annotationStamp]; text != "" {
		var stamp struct {
			Response []byte `json:"SignedRFC3161Timestamp"`
		}
		if err := json.Unmarshal([]byte(text), &stamp); err != nil {
			return c, errors.New("its time stamp cannot be read")
		}
		c.stamps = append(c.stamps, stamp.Response)
	}
	if text := annotations[annotationBundle]; text != "" {
		c.entry, err = readLogBundle([]byte(text))
	}
	return c, err
}

// certificates reads PEM, of at most ten certificates.
func certificates(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if all = append(all, c); len(all) > 10 {
			return nil, errors.New("too many certificates")
		}
	}
	return all, nil
}

// readLogBundle reads cosign's annotation with what Rekor has answered.
func readLogBundle(text []byte) (*entry, error) {
	var b struct {
		Promise []byte `json:"SignedEntryTimestamp"`
		Payload struct {
			Body  []byte `json:"body"`
			Time  int64  `json:"integratedTime"`
			Index int64  `json:"logIndex"`
			Log   string `json:"logID"`
		} `json:"Payload"`
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, fmt.Errorf("its log entry cannot be read: %v", err)
	}
	return &entry{body: b.Payload.Body, time: b.Payload.Time, index: b.Payload.Index, log: b.Payload.Log, promise: b.Promise}, nil
}

// simplePayload is what cosign signs: containers/image's "simple signing" format.
type simplePayload struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest digest.Digest `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
}

// inToto is the statement of an attestation.
type inToto struct {
	Type    string `json:"_type"`
	Subject []struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
	Predicate string `json:"predicateType"`
}

// about says why what was signed is not that the image is approved of.
func (c candidate) about(s Signer, name ref.Ref, root digest.Digest) error {
	if c.envelope {
		return c.states(s, root)
	}
	if s.Predicate != "" {
		return errors.New("it is a signature, wanted is an attestation")
	}
	var p simplePayload
	if err := strict(c.payload, &p); err != nil {
		return fmt.Errorf("what it signs cannot be read: %v", err)
	}
	switch {
	case p.Critical.Type != "cosign container image signature":
		return fmt.Errorf("it signs a %q", p.Critical.Type)
	case p.Critical.Image.Digest != root:
		return fmt.Errorf("it signs %s", short(p.Critical.Image.Digest))
	}
	if s.Reference {
		signed, err := ref.Parse(p.Critical.Identity.Reference)
		if err != nil || signed.Repository() != name.Repository() {
			return fmt.Errorf("it was made for %q", p.Critical.Identity.Reference)
		}
	}
	return nil
}

func (c candidate) states(s Signer, root digest.Digest) error {
	var t inToto
	if err := strict(c.payload, &t); err != nil {
		return fmt.Errorf("what it signs cannot be read: %v", err)
	}
	want := s.Predicate
	if want == "" {
		want = predicateSign
	}
	switch {
	case t.Type != "https://in-toto.io/Statement/v1" && t.Type != "https://in-toto.io/Statement/v0.1":
		return fmt.Errorf("it is a statement of type %q", t.Type)
	case t.Predicate != want:
		return fmt.Errorf("it states %q, wanted is %q", t.Predicate, want)
	case s.Reference:
		return errors.New("it does not tell for which repository it was made")
	}
	for _, subject := range t.Subject {
		if subject.Digest[root.Algorithm().String()] == root.Encoded() {
			return nil
		}
	}
	return errors.New("it is about something else")
}

// strict reads JSON in which no name of a field stands twice: two readers could take two different ones, and one of them
// has been signed for.
func strict(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if err := unique(d, 0, true); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the end")
	}
	return json.Unmarshal(text, into)
}

// unique reads one value. With fold, names that differ in case only are the same, as they are to encoding/json.
func unique(d *json.Decoder, depth int, fold bool) error {
	if depth > 64 {
		return errors.New("it is nested too deeply")
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('['):
		for d.More() {
			if err := unique(d, depth+1, fold); err != nil {
				return err
			}
		}
	case json.Delim('{'):
		if err := uniqueFields(d, depth, fold); err != nil {
			return err
		}
	default:
		return nil
	}
	_, err = d.Token()
	return err
}

func uniqueFields(d *json.Decoder, depth int, fold bool) error {
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		// What is attested is not read here, and may have such names.
		inside := fold && (depth > 0 || key != "predicate")
		if fold {
			key = strings.ToLower(key)
		}
		if seen[key] {
			return fmt.Errorf("%q stands twice", key)
		}
		seen[key] = true
		if err := unique(d, depth+1, inside); err != nil {
			return err
		}
	}
	return nil
}
