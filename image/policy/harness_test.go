package policy

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
)

// memory is a Source.
type memory struct {
	manifests map[string][]byte
	blobs     map[digest.Digest][]byte
	referrers []ocispec.Descriptor
	fail      error
}

func newMemory() *memory {
	return &memory{manifests: map[string][]byte{}, blobs: map[digest.Digest][]byte{}}
}

func (m *memory) Manifest(_ context.Context, name string) ([]byte, error) {
	if text, ok := m.manifests[name]; ok || m.fail != nil {
		return text, m.fail
	}
	return nil, fault.New(fault.NotFound, "no %s", name)
}

func (m *memory) Blob(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if text, ok := m.blobs[d.Digest]; ok {
		return io.NopCloser(bytes.NewReader(text)), nil
	}
	return nil, fault.New(fault.NotFound, "no %s", d.Digest)
}

func (m *memory) Referrers(context.Context, digest.Digest) ([]ocispec.Descriptor, error) {
	return m.referrers, m.fail
}

func (m *memory) layer(mediaType string, text []byte, annotations map[string]string) ocispec.Descriptor {
	d := digest.FromBytes(text)
	m.blobs[d] = text
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(text)), Annotations: annotations}
}

// tagged and referring store signatures in cosign's two ways.
func (m *memory) tagged(root digest.Digest, layers ...ocispec.Descriptor) {
	text, _ := json.Marshal(ocispec.Manifest{Layers: layers})
	m.manifests[strings.Replace(root.String(), ":", "-", 1)+".sig"] = text
}

func (m *memory) referring(artifact string, layers ...ocispec.Descriptor) {
	text, _ := json.Marshal(ocispec.Manifest{Layers: layers})
	d := digest.FromBytes(text)
	m.manifests[d.String()] = text
	m.referrers = append(m.referrers, ocispec.Descriptor{Digest: d, ArtifactType: artifact})
}

var (
	root  = digest.FromString("the image")
	other = digest.FromString("another image")
)

func named(t testing.TB, s string) ref.Ref {
	n, err := ref.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func payload(d digest.Digest, reference string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"%s"},"image":{"docker-manifest-digest":"%s"},"type":"cosign container image signature"},"optional":null}`, reference, d)
}

func publicPEM(t testing.TB, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func sign(t testing.TB, key crypto.Signer, message []byte, h crypto.Hash) []byte {
	t.Helper()
	var sig []byte
	var err error
	if _, ok := key.(ed25519.PrivateKey); ok && h == 0 {
		sig, err = key.Sign(nil, message, crypto.Hash(0))
	} else {
		sig, err = key.Sign(rand.Reader, hashed(h, message), h)
	}
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func ec(t testing.TB) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// keyPolicy wants a signature of a key for everything of registry.example.
func keyPolicy(t testing.TB, key crypto.Signer, more string) *Policy {
	text, _ := json.Marshal(publicPEM(t, key))
	return parsed(t, `{"version":1,"default":"reject","keys":{"team":`+string(text)+`},"rules":[{"images":"registry.example/**","signed":[{"key":"team"`+more+`}]}]}`)
}

func statementOf(d digest.Digest, predicate string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"","digest":{"%s":"%s"}}],"predicateType":"%s","predicate":{"a":1,"A":2}}`, d.Algorithm(), d.Encoded(), predicate)
}

// bundle stores a sigstore bundle of a statement. The certificate and the log's entry may be absent.
func (m *memory) bundle(t testing.TB, key crypto.Signer, statement []byte, cert *x509.Certificate, l *testLog) {
	t.Helper()
	message := preAuthentication(typeInToto, statement)
	sig := sign(t, key, message, crypto.SHA256)
	material := map[string]any{"publicKey": map[string]any{"hint": "x"}}
	if cert != nil {
		material = map[string]any{"certificate": map[string]any{"rawBytes": cert.Raw}}
	}
	if l != nil {
		verifier := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der(key.Public(), nil)})
		if cert != nil {
			verifier = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
		}
		sum := sha256.Sum256(statement)
		body, _ := json.Marshal(map[string]any{"apiVersion": "0.0.1", "kind": "dsse", "spec": map[string]any{
			"payloadHash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])},
			"signatures":  []any{map[string]any{"signature": sig, "verifier": verifier}},
		}})
		if l.two {
			sum = sha256.Sum256(message)
			by := map[string]any{"publicKey": map[string]any{"rawBytes": der(key.Public(), nil)}}
			if cert != nil {
				by = map[string]any{"x509Certificate": map[string]any{"rawBytes": cert.Raw}}
			}
			body, _ = json.Marshal(map[string]any{"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": map[string]any{"hashedRekordV002": map[string]any{
				"data": map[string]any{"algorithm": "SHA2_256", "digest": sum[:]}, "signature": map[string]any{"content": sig, "verifier": by},
			}}})
		}
		material["tlogEntries"] = []any{l.bundled(t, body)}
	}
	text, err := json.Marshal(map[string]any{
		"mediaType": typeBundle + ".v0.3+json", "verificationMaterial": material,
		"dsseEnvelope": map[string]any{"payload": statement, "payloadType": typeInToto, "signatures": []any{map[string]any{"sig": sig}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.referring(typeBundle+".v0.3+json", m.layer(typeBundle+".v0.3+json", text, nil))
}

// testLog is a transparency log of this test's own, with a tree of some entries before ours.
type testLog struct {
	key  *ecdsa.PrivateKey
	time time.Time
	two  bool // as Rekor 2: no promise, hashedrekord 0.0.2
	// What is wrong with it:
	noPromise, wrongRoot, noCheckpoint bool
	otherBody                          []byte // promised and proven in place of the entry
}

func (l *testLog) id() []byte {
	id, _ := keyID(l.key.Public())
	return id[:]
}

func (l *testLog) promise(t testing.TB, body []byte, index int64) []byte {
	text := fmt.Sprintf(`{"body":"%s","integratedTime":%d,"logID":"%x","logIndex":%d}`, b64(body), l.time.Unix(), l.id(), index)
	return sign(t, l.key, []byte(text), crypto.SHA256)
}

// annotation is cosign's for a simple signing payload.
func (l *testLog) annotation(t testing.TB, body []byte) string {
	if l.otherBody != nil {
		body = l.otherBody
	}
	text, _ := json.Marshal(map[string]any{
		"SignedEntryTimestamp": l.promise(t, body, 7),
		"Payload":              map[string]any{"body": b64(body), "integratedTime": l.time.Unix(), "logIndex": 7, "logID": hex.EncodeToString(l.id())},
	})
	return string(text)
}

func (l *testLog) bundled(t testing.TB, body []byte) map[string]any {
	const index, size = 5, 11
	var leaves [][]byte
	for i := range size {
		leaf := fmt.Appendf(nil, "entry %d", i)
		if i == index {
			leaf = body
		}
		h := sha256.Sum256(append([]byte{0}, leaf...))
		leaves = append(leaves, h[:])
	}
	top := tree(leaves)
	if l.wrongRoot {
		top = leaves[0]
	}
	note := fmt.Sprintf("log.example\n%d\n%s\n", size, b64(top))
	checkpoint := note + "\n— log.example " + b64(append(l.id()[:4:4], sign(t, l.key, []byte(note), crypto.SHA256)...)) + "\n"
	if l.noCheckpoint {
		checkpoint = ""
	}
	promise := l.promise(t, body, 123)
	if l.noPromise || l.two {
		promise = nil
	}
	return map[string]any{
		"logIndex": "123", "integratedTime": fmt.Sprint(l.time.Unix()), "logId": map[string]any{"keyId": l.id()}, "canonicalizedBody": body,
		"inclusionPromise": map[string]any{"signedEntryTimestamp": promise},
		"inclusionProof":   map[string]any{"logIndex": fmt.Sprint(index), "treeSize": fmt.Sprint(size), "rootHash": top, "hashes": path(leaves, index), "checkpoint": map[string]any{"envelope": checkpoint}},
	}
}

// tree and path are RFC 9162's definitions (section 2.1), which the check does not use.
func tree(leaves [][]byte) []byte {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := split(len(leaves))
	h := node(tree(leaves[:k]), tree(leaves[k:]))
	return h[:]
}

func path(leaves [][]byte, i int) [][]byte {
	if len(leaves) == 1 {
		return nil
	}
	if k := split(len(leaves)); i < k {
		return append(path(leaves[:k], i), tree(leaves[k:]))
	} else {
		return append(path(leaves[k:], i-k), tree(leaves[:k]))
	}
}

func split(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

// authority is a CA of this test's own, and a certificate of ten minutes that it has given.
type authority struct {
	root, between, cert *x509.Certificate
	key                 *ecdsa.PrivateKey
	from                time.Time
}

func newAuthority(t testing.TB, issuer string, change func(*x509.Certificate)) *authority {
	t.Helper()
	key := ec(t)
	a := newAuthorityFor(t, issuer, key.Public(), change)
	a.key = key
	return a
}

// newAuthorityFor gives the certificate for a public key whose private one is elsewhere.
func newAuthorityFor(t testing.TB, issuer string, subject any, change func(*x509.Certificate)) *authority {
	t.Helper()
	a := &authority{from: time.Now().Add(-24 * time.Hour)}
	make := func(c, parent *x509.Certificate, pub any, by crypto.Signer) *x509.Certificate {
		if parent == nil {
			parent = c
		}
		raw, err := x509.CreateCertificate(rand.Reader, c, parent, pub, by)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	ca := func(name string, n int64) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, NotBefore: a.from.Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)}
	}
	rootKey, betweenKey := ec(t), ec(t)
	a.root = make(ca("root", 1), nil, rootKey.Public(), rootKey)
	a.between = make(ca("between", 2), a.root, betweenKey.Public(), rootKey)
	value, _ := asn1.MarshalWithParams(issuer, "utf8")
	leaf := &x509.Certificate{SerialNumber: big.NewInt(3), NotBefore: a.from, NotAfter: a.from.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		EmailAddresses: []string{"dev@corp.example"}, ExtraExtensions: []pkix.Extension{{Id: oidIssuer, Value: value}}}
	if change != nil {
		change(leaf)
	}
	a.cert = make(leaf, a.between, subject, betweenKey)
	return a
}

func certPEM(certs ...*x509.Certificate) string {
	var b strings.Builder
	for _, c := range certs {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.String()
}

func identityPolicy(t testing.TB, a *authority, log *testLog, identity string) *Policy {
	roots, _ := json.Marshal(certPEM(a.root))
	more := ""
	keys := `"roots":` + string(roots)
	if log != nil {
		k, _ := json.Marshal(publicPEM(t, log.key))
		keys += `,"rekor":` + string(k)
		more = `,"log":"rekor"`
	}
	return parsed(t, `{"version":1,"default":"reject","keys":{`+keys+`},"rules":[{"images":"registry.example","signed":[{"identity":{"roots":"roots",`+identity+`}`+more+`}]}]}`)
}

const (
	issuerURL = "https://accounts.example"
	devIs     = `"issuer":"https://accounts.example","subject":"dev@corp.example"`
)

// bundleWithChain stores a bundle whose certificate comes with the one between it and the root.
func (m *memory) bundleWithChain(t testing.TB, a *authority, statement []byte, log *testLog) {
	t.Helper()
	m.bundle(t, a.key, statement, a.cert, log)
	m.edit(func(b map[string]any) {
		material := b["verificationMaterial"].(map[string]any)
		delete(material, "certificate")
		material["x509CertificateChain"] = map[string]any{"certificates": []any{map[string]any{"rawBytes": a.cert.Raw}, map[string]any{"rawBytes": a.between.Raw}}}
	})
}

// edit changes the one bundle that is stored.
func (m *memory) edit(change func(b map[string]any)) {
	var manifest ocispec.Manifest
	json.Unmarshal(m.manifests[m.referrers[0].Digest.String()], &manifest)
	var b map[string]any
	json.Unmarshal(m.blobs[manifest.Layers[0].Digest], &b)
	change(b)
	text, _ := json.Marshal(b)
	m.referrers = nil
	m.referring(typeBundle+".v0.3+json", m.layer(typeBundle+".v0.3+json", text, nil))
}

// simpleWithCertificate stores a simple signing payload as cosign does without a key.
func simpleWithCertificate(t testing.TB, a *authority, log *testLog, otherBody []byte) *memory {
	t.Helper()
	text := payload(root, "registry.example/x")
	sig := sign(t, a.key, text, crypto.SHA256)
	annotations := map[string]string{annotationSignature: b64(sig), annotationCertificate: certPEM(a.cert), annotationChain: certPEM(a.between, a.root)}
	if log != nil {
		sum := sha256.Sum256(text)
		body, _ := json.Marshal(map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
			"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}},
			"signature": map[string]any{"content": sig, "publicKey": map[string]any{"content": []byte(certPEM(a.cert))}},
		}})
		l := *log
		l.otherBody = otherBody
		annotations[annotationBundle] = l.annotation(t, body)
	}
	src := newMemory()
	src.tagged(root, src.layer(typeSimple, text, annotations))
	return src
}
