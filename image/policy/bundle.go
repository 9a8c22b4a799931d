package policy

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// bundle is a sigstore bundle in the JSON of its protocol buffer (sigstore/protobuf-specs, sigstore_bundle.proto), as far as
// it is read here.
type bundle struct {
	MediaType string `json:"mediaType"`
	Material  struct {
		Certificate *rawBytes `json:"certificate"`
		Chain       *struct {
			Certificates []rawBytes `json:"certificates"`
		} `json:"x509CertificateChain"`
		Entries []struct {
			Index   number `json:"logIndex"`
			Time    number `json:"integratedTime"`
			Promise struct {
				Timestamp []byte `json:"signedEntryTimestamp"`
			} `json:"inclusionPromise"`
			Proof *struct {
				Index      number   `json:"logIndex"`
				Size       number   `json:"treeSize"`
				Root       []byte   `json:"rootHash"`
				Hashes     [][]byte `json:"hashes"`
				Checkpoint struct {
					Envelope string `json:"envelope"`
				} `json:"checkpoint"`
			} `json:"inclusionProof"`
			Body []byte `json:"canonicalizedBody"`
			Log  struct {
				ID []byte `json:"keyId"`
			} `json:"logId"`
		} `json:"tlogEntries"`
		Stamps struct {
			Signed []struct {
				Response []byte `json:"signedTimestamp"`
			} `json:"rfc3161Timestamps"`
		} `json:"timestampVerificationData"`
	} `json:"verificationMaterial"`
	Envelope *struct {
		Payload    []byte `json:"payload"`
		Type       string `json:"payloadType"`
		Signatures []struct {
			Signature []byte `json:"sig"`
		} `json:"signatures"`
	} `json:"dsseEnvelope"`
}

type rawBytes struct {
	Bytes []byte `json:"rawBytes"`
}

// number is a 64-bit integer, which the JSON of protocol buffers writes as a string.
type number int64

// UnmarshalJSON reads a number, with or without quotes.
func (n *number) UnmarshalJSON(text []byte) error {
	v, err := strconv.ParseInt(strings.Trim(string(text), `"`), 10, 64)
	*n = number(v)
	return err
}

// readBundle reads a bundle of a DSSE envelope with one signature.
func readBundle(text []byte) (candidate, error) {
	var b bundle
	if err := json.Unmarshal(text, &b); err != nil {
		return candidate{}, fmt.Errorf("the bundle cannot be read: %v", err)
	}
	if !strings.HasPrefix(b.MediaType, typeBundle) {
		return candidate{}, fmt.Errorf("the bundle is of type %q", b.MediaType)
	}
	e := b.Envelope
	switch {
	case e == nil:
		return candidate{}, errors.New("the bundle has no envelope: it signs no image")
	case e.Type != typeInToto:
		return candidate{}, fmt.Errorf("the envelope holds %q", e.Type)
	case len(e.Signatures) != 1:
		return candidate{}, fmt.Errorf("the envelope has %d signatures, one is allowed", len(e.Signatures))
	}
	c := candidate{payload: e.Payload, message: preAuthentication(e.Type, e.Payload), envelope: true, signature: e.Signatures[0].Signature}
	var raw []rawBytes
	if b.Material.Certificate != nil {
		raw = append(raw, *b.Material.Certificate)
	} else if b.Material.Chain != nil {
		raw = b.Material.Chain.Certificates
	}
	for i, r := range raw {
		cert, err := x509.ParseCertificate(r.Bytes)
		switch {
		case err != nil || i > 10:
			return candidate{}, errors.New("the bundle's certificates cannot be read")
		case i == 0:
			c.cert = cert
		default:
			c.chain = append(c.chain, cert)
		}
	}
	for _, stamp := range b.Material.Stamps.Signed {
		c.stamps = append(c.stamps, stamp.Response)
	}
	if len(b.Material.Entries) == 0 {
		return c, nil
	}
	if len(b.Material.Entries) > 1 {
		return candidate{}, fmt.Errorf("the bundle has %d entries of logs, one is allowed", len(b.Material.Entries))
	}
	t := b.Material.Entries[0]
	c.entry = &entry{body: t.Body, time: int64(t.Time), index: int64(t.Index), log: hex.EncodeToString(t.Log.ID), promise: t.Promise.Timestamp}
	if p := t.Proof; p != nil {
		c.entry.proof = &proof{index: int64(p.Index), size: int64(p.Size), root: p.Root, hashes: p.Hashes, checkpoint: p.Checkpoint.Envelope}
	}
	return c, nil
}

// preAuthentication is what is signed of a DSSE envelope (secure-systems-lab/dsse, protocol.md): its type and payload with
// their lengths, so that neither can be taken for the other.
func preAuthentication(kind string, payload []byte) []byte {
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(kind), kind, len(payload)), payload...)
}
