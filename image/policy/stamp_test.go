package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"berth/base/fault"
)

// stamper is an authority of time stamps of this test's own.
type stamper struct {
	root, cert *x509.Certificate
	key        *ecdsa.PrivateKey
}

func newStamper(t *testing.T) *stamper {
	t.Helper()
	s := &stamper{key: ec(t)}
	rootKey := ec(t)
	make := func(c, parent *x509.Certificate, pub any) *x509.Certificate {
		c.NotBefore, c.NotAfter = time.Now().AddDate(-1, 0, 0), time.Now().AddDate(1, 0, 0)
		if parent == nil {
			parent = c
		}
		raw, err := x509.CreateCertificate(rand.Reader, c, parent, pub, rootKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	// RFC 3161 section 2.3: for time stamps only, and critical.
	usage, _ := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	s.root = make(&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stamps"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, rootKey.Public())
	s.cert = make(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "stamper"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}}}, s.root, s.key.Public())
	return s
}

func (s *stamper) stamp(t *testing.T, signature []byte, at time.Time) []byte {
	t.Helper()
	out, err := (&timestamp.Timestamp{HashAlgorithm: crypto.SHA256, HashedMessage: hashed(crypto.SHA256, signature), Time: at, Policy: asn1.ObjectIdentifier{1, 2, 3},
		SerialNumber: big.NewInt(7), AddTSACertificate: true}).CreateResponseWithOpts(s.cert, s.key, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A log that does not sign its time, as Rekor 2, needs an authority that does.
func TestTimeStamps(t *testing.T) {
	a := newAuthority(t, issuerURL, nil)
	log := &testLog{key: ec(t), time: a.from, two: true}
	authority := newStamper(t)
	roots, _ := json.Marshal(certPEM(a.root))
	rekor, _ := json.Marshal(publicPEM(t, log.key))
	policyOf := func(s *stamper, signer string) *Policy {
		stamps, _ := json.Marshal(certPEM(s.root))
		return parsed(t, `{"version":1,"default":"reject","keys":{"roots":`+string(roots)+`,"rekor":`+string(rekor)+`,"tsa":`+string(stamps)+`},
			"rules":[{"images":"registry.example","signed":[{"identity":{"roots":"roots",`+devIs+`}`+signer+`}]}]}`)
	}
	const both = `,"log":"rekor","timestamps":"tsa"`
	for what, c := range map[string]struct {
		stamper *stamper
		signer  string
		at      time.Duration // after the certificate was given
		other   bool          // the stamp is of another signature
		none    bool
		log     func(*testLog)
		want    string
	}{
		"as it should be":          {authority, both, time.Minute, false, false, nil, ""},
		"without a log":            {authority, `,"timestamps":"tsa"`, time.Minute, false, false, nil, ""},
		"no authority is given":    {authority, `,"log":"rekor"`, time.Minute, false, false, nil, "does not sign the time"},
		"stamped when it was over": {authority, both, time.Hour, false, false, nil, "expired"},
		"of another signature":     {authority, both, time.Minute, true, false, nil, "time stamp"},
		"another authority":        {newStamper(t), both, time.Minute, false, false, nil, "time stamp"},
		"no stamp":                 {authority, both, time.Minute, false, true, nil, "no time stamp"},
		"a proof of another root":  {authority, both, time.Minute, false, false, func(l *testLog) { l.wrongRoot = true }, "another root"},
		"no checkpoint":            {authority, both, time.Minute, false, false, func(l *testLog) { l.noCheckpoint = true }, "checkpoint"},
		"another log":              {authority, both, time.Minute, false, false, func(l *testLog) { l.key = ec(t) }, "checkpoint is not signed by the log"},
	} {
		l := *log
		if c.log != nil {
			c.log(&l)
		}
		src := newMemory()
		src.bundleWithChain(t, a, statementOf(root, predicateSign), &l)
		src.edit(func(b map[string]any) {
			sig := b["dsseEnvelope"].(map[string]any)["signatures"].([]any)[0].(map[string]any)["sig"].(string)
			raw, _ := base64.StdEncoding.DecodeString(sig)
			if c.other {
				raw = append(raw, 0)
			}
			if !c.none {
				b["verificationMaterial"].(map[string]any)["timestampVerificationData"] = map[string]any{
					"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": authority.stamp(t, raw, a.from.Add(c.at))}},
				}
			}
		})
		v, err := policyOf(c.stamper, c.signer).Check(t.Context(), named(t, "registry.example/x"), root, src)
		if c.want == "" && (err != nil || len(v.By) != 1) || c.want != "" && (!fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %+v, %v; want %q", what, v, err, c.want)
		}
	}
	// A key needs no time: the proof of the log is enough.
	key := ec(t)
	keys, _ := json.Marshal(publicPEM(t, key))
	p := parsed(t, `{"version":1,"default":"reject","keys":{"team":`+string(keys)+`,"rekor":`+string(rekor)+`},"rules":[{"images":"registry.example","signed":[{"key":"team","log":"rekor"}]}]}`)
	src := newMemory()
	src.bundle(t, key, statementOf(root, predicateSign), nil, log)
	if _, err := p.Check(t.Context(), named(t, "registry.example/x"), root, src); err != nil {
		t.Error(err)
	}
}
