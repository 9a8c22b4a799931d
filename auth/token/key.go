package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"berth/base/atomicfile"
	"berth/base/fault"
)

// Keys are the private keys of a token service. The first signs, all check.
type Keys struct {
	signer *ecdsa.PrivateKey
	id     string // of the signer
	public map[string]*ecdsa.PublicKey
}

// LoadKeys reads the keys of a file, PKCS #8 in PEM, P-256; where there is no file it makes a key and writes it with mode 0600. A
// file that others than its owner may read is refused.
func LoadKeys(path string) (*Keys, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "token key")
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "token key")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Invalid, "token key %s can be read by others (mode %#o): whoever has it can sign in as anybody. Remove it, a new one is made", path, info.Mode().Perm())
	}
	k := &Keys{public: map[string]*ecdsa.PublicKey{}}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "token key %s", path)
		}
		key, ok := parsed.(*ecdsa.PrivateKey)
		if !ok || key.Curve != elliptic.P256() {
			return nil, fault.New(fault.Invalid, "token key %s is not of P-256", path)
		}
		k.add(key)
	}
	if k.signer == nil {
		return nil, fault.New(fault.Invalid, "token key %s holds no key", path)
	}
	return k, nil
}

func makeKey(path string) (*Keys, error) {
	text, key, err := newKey()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(path, text, 0o600)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "token key")
	}
	k := &Keys{public: map[string]*ecdsa.PublicKey{}}
	k.add(key)
	return k, nil
}

func newKey() ([]byte, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	err = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return b.Bytes(), key, err
}

func (k *Keys) add(key *ecdsa.PrivateKey) {
	id := thumbprint(&key.PublicKey)
	if k.signer == nil {
		k.signer, k.id = key, id
	}
	k.public[id] = &key.PublicKey
}

// webKey is a public key after RFC 7517. The order of the fields is that of RFC 7638, whose thumbprint is the hash of
// this JSON.
type webKey struct {
	Curve string `json:"crv"`
	Type  string `json:"kty"`
	X     string `json:"x"`
	Y     string `json:"y"`
}

func public(key *ecdsa.PublicKey) webKey {
	point, err := key.Bytes() // 0x04, X, Y: SEC 1 section 2.3.3
	if err != nil || len(point) != 65 {
		return webKey{} // only P-256 gets here
	}
	b64 := base64.RawURLEncoding
	return webKey{Curve: "P-256", Type: "EC", X: b64.EncodeToString(point[1:33]), Y: b64.EncodeToString(point[33:])}
}

func thumbprint(key *ecdsa.PublicKey) string {
	text, _ := json.Marshal(public(key)) // strings only: cannot fail
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Public gives the public keys as a JSON Web Key Set (RFC 7517), for others who check the tokens.
func (k *Keys) Public() []byte {
	type entry struct {
		webKey
		ID        string `json:"kid"`
		Algorithm string `json:"alg"`
		Use       string `json:"use"`
	}
	set := struct {
		Keys []entry `json:"keys"`
	}{Keys: []entry{}}
	for id, key := range k.public {
		set.Keys = append(set.Keys, entry{public(key), id, "ES256", "sig"})
	}
	text, _ := json.Marshal(set)
	return text
}
