package policy

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"
)

// logs are the keys of transparency logs by their id in hex.
type logs map[string]any

func newLogs(keys []any) logs {
	l := logs{}
	for _, k := range keys {
		if id, err := keyID(k); err == nil {
			l[hex.EncodeToString(id[:])] = k
		}
	}
	return l
}

// entry is what a transparency log (Rekor) says of a signature.
type entry struct {
	body    []byte // canonical JSON of what was entered
	time    int64  // when, seconds since 1970; only the promise covers it
	index   int64  // in the whole log
	log     string // id of its key, hex
	promise []byte // signed entry timestamp
	proof   *proof // nil: none was given
}

// proof leads from an entry to the root of the log's tree, which the log has signed.
type proof struct {
	index, size int64
	root        []byte
	hashes      [][]byte
	checkpoint  string
}

// statement is what must have been entered: the signature, the key or certificate that it is checked with, and the
// hash of what was signed.
type statement struct {
	signature []byte
	verifier  []byte // DER of the certificate, or of the public key
	message   []byte // what was signed
	payload   []byte // of a DSSE envelope, which is signed with its type; otherwise the message
}

// check says when the log took the statement in; the zero time when the log does not sign that (Rekor 2) and only its
// proof shows that it did.
func (l logs) check(e *entry, s statement) (time.Time, error) {
	var at time.Time
	switch {
	case len(e.promise) > 0:
		if err := l.promised(e); err != nil {
			return at, err
		}
		at = time.Unix(e.time, 0)
	case e.proof != nil:
		if err := l.proven(e); err != nil {
			return at, err
		}
	default:
		return at, errors.New("the log has neither signed its entry nor proven it")
	}
	return at, s.entered(e.body)
}

// promised checks the log's promise, and the proof where there is one as well.
func (l logs) promised(e *entry) error {
	key, ok := l[e.log]
	if !ok {
		return fmt.Errorf("the entry is of another log (%.16s…)", e.log)
	}
	// RFC 8785 canonical JSON: keys in order, no spaces. Base64 and hex need no escapes.
	signed := fmt.Sprintf(`{"body":"%s","integratedTime":%d,"logID":"%s","logIndex":%d}`,
		base64.StdEncoding.EncodeToString(e.body), e.time, e.log, e.index)
	if !verify(key, []byte(signed), e.promise) {
		return errors.New("the log's signature of the entry is wrong")
	}
	if e.proof != nil {
		if err := e.proof.check(e.body, key); err != nil {
			return fmt.Errorf("the proof of the entry: %v", err)
		}
	}
	return nil
}

// proven checks the proof with each of the logs' keys: the id that a Rekor 2 log gives for its key depends on its name.
func (l logs) proven(e *entry) error {
	err := errors.New("no log is known")
	for _, key := range l {
		if err = e.proof.check(e.body, key); err == nil {
			return nil
		}
	}
	return fmt.Errorf("the proof of the entry: %v", err)
}

// body is what is read of an entry: kinds hashedrekord 0.0.1, dsse 0.0.1 and intoto 0.0.2 of Rekor, hashedrekord 0.0.2 of Rekor 2.
type body struct {
	Kind    string `json:"kind"`
	Version string `json:"apiVersion"`
	Spec    struct {
		Data struct {
			Hash hash `json:"hash"`
		} `json:"data"`
		Signature struct {
			Content []byte `json:"content"`
			Key     struct {
				Content []byte `json:"content"`
			} `json:"publicKey"`
		} `json:"signature"`

		PayloadHash hash `json:"payloadHash"`
		Signatures  []struct {
			Signature []byte `json:"signature"`
			Verifier  []byte `json:"verifier"`
		} `json:"signatures"`

		Content struct {
			PayloadHash hash `json:"payloadHash"`
			Envelope    struct {
				Signatures []struct {
					Signature []byte `json:"sig"` // base64 once more
					Key       []byte `json:"publicKey"`
				} `json:"signatures"`
			} `json:"envelope"`
		} `json:"content"`

		V2 struct {
			Data struct {
				Algorithm string `json:"algorithm"`
				Digest    []byte `json:"digest"`
			} `json:"data"`
			Signature struct {
				Content  []byte `json:"content"`
				Verifier struct {
					Key         rawBytes `json:"publicKey"`
					Certificate rawBytes `json:"x509Certificate"`
				} `json:"verifier"`
			} `json:"signature"`
		} `json:"hashedRekordV002"`
	} `json:"spec"`
}

type hash struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"value"`
}

// entered says why an entry is not about the statement; nil when it is. Without this any entry of the log would do.
func (s statement) entered(text []byte) error {
	var b body
	if err := json.Unmarshal(text, &b); err != nil {
		return fmt.Errorf("the log's entry cannot be read: %v", err)
	}
	switch b.Kind + " " + b.Version {
	case "hashedrekord 0.0.1":
		return s.same(s.message, b.Spec.Data.Hash, b.Spec.Signature.Content, b.Spec.Signature.Key.Content)
	case "hashedrekord 0.0.2":
		v := b.Spec.V2
		sum := sha256.Sum256(s.message)
		by := v.Signature.Verifier
		if v.Data.Algorithm == "SHA2_256" && bytes.Equal(v.Data.Digest, sum[:]) && bytes.Equal(v.Signature.Content, s.signature) &&
			(bytes.Equal(by.Key.Bytes, s.verifier) || bytes.Equal(by.Certificate.Bytes, s.verifier)) {
			return nil
		}
	case "dsse 0.0.1":
		for _, g := range b.Spec.Signatures {
			if s.same(s.payload, b.Spec.PayloadHash, g.Signature, g.Verifier) == nil {
				return nil
			}
		}
	case "intoto 0.0.2":
		for _, g := range b.Spec.Content.Envelope.Signatures {
			sig, err := base64.StdEncoding.DecodeString(string(g.Signature))
			if err == nil && s.same(s.payload, b.Spec.Content.PayloadHash, sig, g.Key) == nil {
				return nil
			}
		}
	default:
		return fmt.Errorf("the log's entry is of kind %s %s, which is not known", b.Kind, b.Version)
	}
	return errors.New("the log's entry is about another signature")
}

func (s statement) same(content []byte, h hash, sig, verifier []byte) error {
	sum := sha256.Sum256(content)
	block, _ := pem.Decode(verifier)
	if h.Algorithm != "sha256" || h.Value != hex.EncodeToString(sum[:]) || !bytes.Equal(sig, s.signature) || block == nil || !bytes.Equal(block.Bytes, s.verifier) {
		return errors.New("the log's entry is about another signature")
	}
	return nil
}

// check follows the proof (RFC 9162 section 2.1.3.2) and checks the log's signature of the root.
func (p *proof) check(leaf []byte, key any) error {
	if p.index < 0 || p.size <= p.index || len(p.hashes) > 64 {
		return errors.New("impossible numbers")
	}
	h := sha256.Sum256(append([]byte{0}, leaf...))
	inner := bits.Len64(uint64(p.index) ^ uint64(p.size-1)) // levels in which the entry's way and the last one's differ
	if len(p.hashes) != inner+bits.OnesCount64(uint64(p.index)>>inner) {
		return errors.New("wrong number of hashes")
	}
	for i, sibling := range p.hashes {
		// Below "inner" the entry may be a left or a right child; above it is always the right one.
		if i >= inner || p.index>>i&1 == 1 {
			h = node(sibling, h[:])
		} else {
			h = node(h[:], sibling)
		}
	}
	if !bytes.Equal(h[:], p.root) {
		return errors.New("it leads to another root")
	}
	return p.signedRoot(key)
}

func node(left, right []byte) [32]byte {
	return sha256.Sum256(bytes.Join([][]byte{{1}, left, right}, nil))
}

// signedRoot checks the checkpoint, a signed note (C2SP signed-note and tlog-checkpoint): origin, size and root, a line
// each, an empty line, then lines "— NAME BASE64", whose bytes are four of the key's id, a hint, and the signature of the text.
func (p *proof) signedRoot(key any) error {
	text, signatures, ok := strings.Cut(p.checkpoint, "\n\n")
	lines := strings.Split(text, "\n")
	if !ok || len(lines) < 3 || lines[1] != fmt.Sprint(p.size) || lines[2] != base64.StdEncoding.EncodeToString(p.root) {
		return errors.New("its checkpoint is for another tree")
	}
	for _, line := range strings.Split(signatures, "\n") {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[0] != "—" {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(fields[2])
		if err == nil && len(raw) > 4 && verify(key, []byte(text+"\n"), raw[4:]) {
			return nil
		}
	}
	return errors.New("its checkpoint is not signed by the log")
}

// der gives what stands for a verifier in a log's entry.
func der(key any, cert *x509.Certificate) []byte {
	if cert != nil {
		return cert.Raw
	}
	raw, _ := x509.MarshalPKIXPublicKey(key)
	return raw
}
