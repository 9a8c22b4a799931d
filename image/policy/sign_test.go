package policy

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

func TestKinds(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	name := named(t, "registry.example/team/web:2")
	for what, c := range map[string]struct {
		key  crypto.Signer
		hash crypto.Hash
	}{
		"P-256": {ec(t), crypto.SHA256}, "P-384, SHA-256": {p384, crypto.SHA256}, "P-384, SHA-384": {p384, crypto.SHA384},
		"RSA": {rsaKey, crypto.SHA256}, "Ed25519": {ed, 0}, "Ed25519ph": {ed, crypto.SHA512},
	} {
		text := payload(root, "registry.example/team/web")
		src := newMemory()
		src.tagged(root, src.layer(typeSimple, text, map[string]string{annotationSignature: b64(sign(t, c.key, text, c.hash))}))
		p := keyPolicy(t, c.key, "")
		if v, err := p.Check(t.Context(), name, root, src); err != nil || len(v.By) != 1 || v.By[0] != "key team" {
			t.Errorf("%s: %+v, %v", what, v, err)
		}
		if _, err := keyPolicy(t, ec(t), "").Check(t.Context(), name, root, src); !fault.Is(err, fault.Forbidden) {
			t.Errorf("%s, another key: %v", what, err)
		}
	}
	n := new(big.Int).SetBit(big.NewInt(1), 1023, 1)
	raw, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseKeys(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: raw})); err == nil {
		t.Error("an RSA key of 1024 bits is taken")
	}
}

// Everything that an attacker who can write to the registry could store is refused, with a reason.
func TestSignaturesThatDoNotCount(t *testing.T) {
	key := ec(t)
	text := payload(root, "registry.example/team/web")
	good := b64(sign(t, key, text, crypto.SHA256))
	signed := func(text []byte) map[string]string {
		return map[string]string{annotationSignature: b64(sign(t, key, text, crypto.SHA256))}
	}
	twice := bytes.Replace(text, []byte(`"image"`), fmt.Appendf(nil, `"image":{"docker-manifest-digest":"%s"},"Image"`, other), 1)
	for what, c := range map[string]struct {
		make func(m *memory)
		more string // of the signer
		want string
	}{
		"none":             {func(m *memory) {}, "", "is not signed; wanted is a signature of key team"},
		"of another image": {func(m *memory) { o := payload(other, "x"); m.tagged(root, m.layer(typeSimple, o, signed(o))) }, "", "it signs " + short(other)},
		"changed": {func(m *memory) {
			m.tagged(root, m.layer(typeSimple, append(text, ' '), map[string]string{annotationSignature: good}))
		}, "", "the signature is wrong"},
		"no signature": {func(m *memory) { m.tagged(root, m.layer(typeSimple, text, nil)) }, "", "no signature in base64"},
		"garbage": {func(m *memory) {
			m.tagged(root, m.layer(typeSimple, text, map[string]string{annotationSignature: "!"}))
		}, "", "no signature in base64"},
		"of something else": {func(m *memory) {
			o := bytes.Replace(text, []byte("cosign container"), []byte("git tag"), 1)
			m.tagged(root, m.layer(typeSimple, o, signed(o)))
		}, "", "it signs a"},
		"two readings":       {func(m *memory) { m.tagged(root, m.layer(typeSimple, twice, signed(twice))) }, "", "stands twice"},
		"more after the end": {func(m *memory) { o := append(text, "{}"...); m.tagged(root, m.layer(typeSimple, o, signed(o))) }, "", "more after the end"},
		"no manifest":        {func(m *memory) { m.manifests[strings.Replace(root.String(), ":", "-", 1)+".sig"] = []byte("x") }, "", "it is no manifest"},
		"layer is not there": {func(m *memory) { m.tagged(root, m.layer(typeSimple, text, signed(text))); clear(m.blobs) }, "", "no sha256:"},
		"layer is another one": {func(m *memory) {
			l := m.layer(typeSimple, text, signed(text))
			m.blobs[l.Digest] = []byte("x")
			m.tagged(root, l)
		}, "", "another digest than it says"},
		"layer is huge":      {func(m *memory) { l := m.layer(typeSimple, text, signed(text)); l.Size = 1 << 40; m.tagged(root, l) }, "", "not one of a signature"},
		"layer of no digest": {func(m *memory) { l := m.layer(typeSimple, text, signed(text)); l.Digest = "../x"; m.tagged(root, l) }, "", "not one of a signature"},
		"other type":         {func(m *memory) { m.tagged(root, m.layer("text/plain", text, signed(text))) }, "", "is not signed"},
		"for another repository": {func(m *memory) {
			o := payload(root, "registry.example/team/old")
			m.tagged(root, m.layer(typeSimple, o, signed(o)))
		}, `,"reference":true`, `it was made for "registry.example/team/old"`},
		"no log entry":          {func(m *memory) { m.tagged(root, m.layer(typeSimple, text, signed(text))) }, `,"log":"team"`, "no entry of a transparency log"},
		"an attestation wanted": {func(m *memory) { m.tagged(root, m.layer(typeSimple, text, signed(text))) }, `,"predicate":"https://x"`, "wanted is an attestation"},
		"bundle is garbage": {func(m *memory) {
			m.referring(typeBundle+".v0.3+json", m.layer(typeBundle+".v0.3+json", []byte("x"), nil))
		}, "", "the bundle cannot be read"},
		"bundle without content": {func(m *memory) {
			m.referring(typeBundle+".v0.3+json", m.layer(typeBundle+".v0.3+json", []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`), nil))
		}, "", "no envelope"},
		"another predicate":     {func(m *memory) { m.bundle(t, key, statementOf(root, "https://slsa.dev/provenance/v1"), nil, nil) }, "", `it states "https://slsa.dev/provenance/v1"`},
		"bundle of another":     {func(m *memory) { m.bundle(t, key, statementOf(other, predicateSign), nil, nil) }, "", "about something else"},
		"bundle of another key": {func(m *memory) { m.bundle(t, ec(t), statementOf(root, predicateSign), nil, nil) }, "", "the signature is wrong"},
	} {
		src := newMemory()
		c.make(src)
		_, err := keyPolicy(t, key, c.more).Check(t.Context(), named(t, "registry.example/team/web:2"), root, src)
		if !fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "(policy.json line 1, registry.example/**)") {
			t.Errorf("%s: %v; want %q", what, err, c.want)
		}
	}
	// One that counts among many that do not.
	src := newMemory()
	o := payload(other, "x")
	src.tagged(root, src.layer(typeSimple, o, signed(o)), src.layer(typeSimple, text, map[string]string{annotationSignature: "!"}))
	src.referring(typeSigned, src.layer(typeSimple, text, map[string]string{annotationSignature: good}))
	if _, err := keyPolicy(t, key, "").Check(t.Context(), named(t, "registry.example/x"), root, src); err != nil {
		t.Error(err)
	}
	// What cannot be asked is not accepted, and not called unsigned.
	src.fail = fault.New(fault.Unavailable, "down")
	src.manifests = map[string][]byte{}
	if _, err := keyPolicy(t, key, "").Check(t.Context(), named(t, "registry.example/x"), root, src); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a registry that is down: %v", err)
	}
	// A flood of them ends.
	src = newMemory()
	var layers []ocispec.Descriptor
	for i := range 10 * maxSignatures {
		layers = append(layers, src.layer(typeSimple, fmt.Appendf(nil, "%d", i), signed(text)))
	}
	src.tagged(root, layers...)
	if found, err := find(t.Context(), src, root); err != nil || len(found) != maxSignatures {
		t.Errorf("%d candidates, %v", len(found), err)
	}
}

func TestDigestsAndActions(t *testing.T) {
	p := parsed(t, `{"version":1,"default":"accept","rules":[
{"images":"no.example","action":"reject","reason":"use yes.example"},
{"images":"pin.example","digest":true},
{"images":"one.example","digests":["`+root.String()+`"]}]}`)
	for name, want := range map[string]string{
		"any.example/x":                   "",
		"no.example/x":                    "(policy.json line 2, no.example): rejected: use yes.example",
		"pin.example/x:1":                 "(policy.json line 3, pin.example): the name must have a digest: pin.example/x@" + root.String(),
		"pin.example/x@" + root.String():  "",
		"one.example/x":                   "",
		"one.example/y@" + other.String(): "(policy.json line 4, one.example): " + other.String() + " is none of the 1 digests that are allowed",
	} {
		d := root
		if strings.Contains(name, other.String()) {
			d = other
		}
		_, err := p.Check(t.Context(), named(t, name), d, newMemory())
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestSeveralSigners(t *testing.T) {
	a, b := ec(t), ec(t)
	ka, _ := json.Marshal(publicPEM(t, a))
	kb, _ := json.Marshal(publicPEM(t, b))
	p := parsed(t, `{"version":1,"default":"reject","keys":{"a":`+string(ka)+`,"b":`+string(kb)+`},"rules":[{"images":"registry.example","signed":[{"key":"a"},{"key":"b"}],"need":2}]}`)
	text := payload(root, "x")
	name := named(t, "registry.example/x")
	src := newMemory()
	one := src.layer(typeSimple, text, map[string]string{annotationSignature: b64(sign(t, a, text, crypto.SHA256))})
	two := src.layer(typeSimple, text, map[string]string{annotationSignature: b64(sign(t, b, text, crypto.SHA256))})
	src.tagged(root, one, one)
	if _, err := p.Check(t.Context(), name, root, src); err == nil || !strings.Contains(err.Error(), "signed by key a; wanted are 2 of 2") {
		t.Errorf("the same one twice: %v", err)
	}
	src.tagged(root, one, two)
	if v, err := p.Check(t.Context(), name, root, src); err != nil || len(v.By) != 2 {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestBundles(t *testing.T) {
	key := ec(t)
	name := named(t, "registry.example/x")
	src := newMemory()
	src.bundle(t, key, statementOf(root, predicateSign), nil, nil)
	if v, err := keyPolicy(t, key, "").Check(t.Context(), name, root, src); err != nil || len(v.By) != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	src = newMemory()
	src.bundle(t, key, statementOf(root, "https://slsa.dev/provenance/v1"), nil, nil)
	if _, err := keyPolicy(t, key, `,"predicate":"https://slsa.dev/provenance/v1"`).Check(t.Context(), name, root, src); err != nil {
		t.Error(err)
	}
}

func TestProofs(t *testing.T) {
	for size := 1; size < 20; size++ {
		var leaves [][]byte
		for i := range size {
			h := sha256.Sum256([]byte{0, byte(i)})
			leaves = append(leaves, h[:])
		}
		for i := range size {
			p := proof{index: int64(i), size: int64(size), root: tree(leaves), hashes: path(leaves, i)}
			if err := p.check([]byte{byte(i)}, nil); err == nil || !strings.Contains(err.Error(), "checkpoint") {
				t.Errorf("%d of %d: %v; the way is right, only the checkpoint is missing", i, size, err)
			}
			if err := p.check([]byte{byte(i + 1)}, nil); err == nil || !strings.Contains(err.Error(), "another root") {
				t.Errorf("%d of %d, another entry: %v", i, size, err)
			}
			if p.index = int64(i + 1); p.check([]byte{byte(i)}, nil) == nil || strings.Contains(fmt.Sprint(p.check([]byte{byte(i)}, nil)), "checkpoint") {
				t.Errorf("%d of %d is at %d as well", i, size, i+1)
			}
		}
	}
}

func TestIdentities(t *testing.T) {
	inTime := func(a *authority) *testLog { return &testLog{key: ec(t), time: a.from.Add(time.Minute)} }
	uri, _ := url.Parse("https://git.example/team/web/.ci@refs/tags/v1")
	// An otherName as Fulcio writes user names: [0] { OID, [0] EXPLICIT UTF8String }.
	value, _ := asn1.MarshalWithParams("dev!corp", "utf8")
	id, _ := asn1.Marshal(oidUserName)
	explicit, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: value})
	otherName, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append(id, explicit...)})
	names, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: otherName})
	for _, c := range []struct {
		what     string
		issuer   string
		cert     func(*x509.Certificate)
		log      func(*authority) *testLog
		identity string
		want     string // "" when it counts
	}{
		{"as it should be", issuerURL, nil, inTime, devIs, ""},
		{"match", issuerURL, nil, inTime, `"issuer":"https://accounts.example","match":".*@corp[.]example"`, ""},
		{"match is of the whole", issuerURL, nil, inTime, `"issuer":"https://accounts.example","match":"corp[.]example"`, "the certificate is for"},
		{"another subject", issuerURL, nil, inTime, `"issuer":"https://accounts.example","subject":"root@corp.example"`, `the certificate is for ["dev@corp.example"]`},
		{"another issuer", "https://evil.example", nil, inTime, devIs, `the certificate's issuer is "https://evil.example"`},
		{"the issuer as older certificates have it", issuerURL, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: oidIssuerText, Value: []byte(issuerURL)}}
		}, inTime, devIs, ""},
		{"no issuer", issuerURL, func(c *x509.Certificate) { c.ExtraExtensions = nil }, inTime, devIs, `issuer is ""`},
		{"a workload", issuerURL, func(c *x509.Certificate) { c.EmailAddresses, c.URIs = nil, []*url.URL{uri} }, inTime, `"issuer":"https://accounts.example","match":"https://git[.]example/team/web/.*"`, ""},
		{"a user name", issuerURL, func(c *x509.Certificate) {
			c.EmailAddresses = nil
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oidAltName, Critical: true, Value: names})
		}, inTime, `"issuer":"https://accounts.example","subject":"dev!corp"`, ""},
		{"not for code signing", issuerURL, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, inTime, devIs, "incompatible key usage"},
		{"signed when it was over", issuerURL, nil, func(a *authority) *testLog { return &testLog{key: ec(t), time: a.from.Add(time.Hour)} }, devIs, "expired"},
		{"no log, long over", issuerURL, nil, nil, devIs, "expired"},
		{"no log, still good", issuerURL, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) }, nil, devIs, ""},
		{"no promise", issuerURL, nil, func(a *authority) *testLog { l := inTime(a); l.noPromise = true; return l }, devIs, "does not sign the time"},
		{"a proof that leads elsewhere", issuerURL, nil, func(a *authority) *testLog { l := inTime(a); l.wrongRoot = true; return l }, devIs, "leads to another root"},
		{"no checkpoint", issuerURL, nil, func(a *authority) *testLog { l := inTime(a); l.noCheckpoint = true; return l }, devIs, "checkpoint"},
	} {
		a := newAuthority(t, c.issuer, c.cert)
		var log *testLog
		if c.log != nil {
			log = c.log(a)
		}
		p := identityPolicy(t, a, log, c.identity)
		check := func(how string, src *memory) {
			t.Helper()
			v, err := p.Check(t.Context(), named(t, "registry.example/x"), root, src)
			if c.want == "" && (err != nil || len(v.By) != 1) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s, %s: %+v, %v; want %q", c.what, how, v, err, c.want)
			}
		}
		src := newMemory()
		src.bundleWithChain(t, a, statementOf(root, predicateSign), log)
		check("bundle", src)
		if log == nil || !log.noPromise && !log.wrongRoot && !log.noCheckpoint {
			check("simple", simpleWithCertificate(t, a, log, nil))
		}
	}

	a := newAuthority(t, issuerURL, nil)
	log := inTime(a)
	p := identityPolicy(t, a, log, devIs)
	refused := func(what string, src *memory, want string) {
		t.Helper()
		if _, err := p.Check(t.Context(), named(t, "registry.example/x"), root, src); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	refused("another log", simpleWithCertificate(t, a, &testLog{key: ec(t), time: log.time}, nil), "of another log")
	refused("no entry", simpleWithCertificate(t, a, nil, nil), "no entry of a transparency log")
	stranger := newAuthority(t, issuerURL, nil)
	refused("another CA", simpleWithCertificate(t, stranger, log, nil), "unknown authority")
	// An entry of the log that is real and about something else: without the comparison any would do.
	refused("another entry", simpleWithCertificate(t, a, log, []byte(`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{}}`)), "about another signature")
	refused("an entry of another kind", simpleWithCertificate(t, a, log, []byte(`{"apiVersion":"0.0.9","kind":"hashedrekord","spec":{}}`)), "not known")
	src := newMemory()
	src.bundle(t, a.key, statementOf(root, predicateSign), nil, nil)
	refused("a key's bundle", src, "no certificate")
}

// Whatever a registry gives is read without a panic, and nothing of it is taken for a signature.
func FuzzSignature(f *testing.F) {
	key := ec(f)
	p := keyPolicy(f, key, "")
	f.Add(payload(root, "x"), "c2ln", "", "")
	f.Add(statementOf(root, predicateSign), "c2ln", "x", `{"SignedEntryTimestamp":"","Payload":{"body":"e30=","integratedTime":1,"logIndex":1,"logID":"00"}}`)
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]},"verificationMaterial":{"tlogEntries":[{"logIndex":"1"}]}}`), "", "", "")
	f.Fuzz(func(t *testing.T, text []byte, sig, cert, bundle string) {
		src := newMemory()
		src.tagged(root, src.layer(typeSimple, text, map[string]string{annotationSignature: sig, annotationCertificate: cert, annotationBundle: bundle}))
		src.referring(typeBundle+".v0.3+json", src.layer(typeBundle+".v0.3+json", text, nil))
		src.manifests["sha256-x"] = text
		if v, err := p.Check(context.Background(), named(t, "registry.example/x"), root, src); err == nil {
			t.Errorf("accepted: %+v", v)
		}
	})
}
