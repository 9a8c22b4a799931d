package http

import (
	"encoding/json"
	"mime"
	nethttp "net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/graph"
)

// address is what a vertex asks for.
type address struct {
	url        string
	checksum   digest.Digest // "" unless the build insists on one
	filename   string        // "" takes the server's
	perm       uint32        // 0 stands for 0600
	uid, gid   int
	authSecret string // name of the secret with the Authorization header
	header     []field
	signature  *signature
}

// field is a header of the request that the build may set.
type field struct{ Name, Value string }

// allowed are the headers that a build may set; others are left out, as BuildKit does.
var allowed = []string{"Accept", "User-Agent"}

// signature is a detached OpenPGP signature that the file must have.
type signature struct{ key, armored []byte }

// parse reads a source's identifier (https://…) and attributes.
func parse(identifier string, attrs map[string]string) (*address, error) {
	a := &address{url: identifier}
	u, err := url.Parse(identifier)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fault.New(fault.Invalid, "invalid address %q", graph.Redact(identifier))
	}
	number := func(key, v string) (n int64) {
		if err == nil {
			n, err = strconv.ParseInt(v, 0, 32)
			err = fault.Wrap(fault.Invalid, err, "%s", key)
		}
		return n
	}
	for k, v := range attrs {
		switch k {
		case pb.AttrHTTPChecksum:
			if a.checksum, err = digest.Parse(v); err != nil {
				return nil, fault.Wrap(fault.Invalid, err, "checksum %q", v)
			}
			if !a.checksum.Algorithm().Available() {
				return nil, fault.New(fault.Invalid, "checksum %q: unknown algorithm", v)
			}
		case pb.AttrHTTPFilename:
			a.filename = v
		case pb.AttrHTTPPerm:
			a.perm = uint32(number(k, v))
		case pb.AttrHTTPUID:
			a.uid = int(number(k, v))
		case pb.AttrHTTPGID:
			a.gid = int(number(k, v))
		case pb.AttrHTTPAuthHeaderSecret:
			a.authSecret = v
		case pb.AttrHTTPSignatureVerifyPubKey:
			a.sign().key = []byte(v)
		case pb.AttrHTTPSignatureVerify:
			a.sign().armored = []byte(v)
		default:
			if name, ok := strings.CutPrefix(k, pb.AttrHTTPHeaderPrefix); ok {
				if name = nethttp.CanonicalHeaderKey(name); slices.Contains(allowed, name) {
					a.header = append(a.header, field{name, v})
				}
			}
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(a.header, func(x, y field) int { return strings.Compare(x.Name, y.Name) })
	if s := a.signature; s != nil && (len(s.key) == 0 || len(s.armored) == 0) {
		return nil, fault.New(fault.Invalid, "http signature verification requires both pubkey and signature")
	}
	return a, nil
}

func (a *address) sign() *signature {
	if a.signature == nil {
		a.signature = &signature{}
	}
	return a.signature
}

// key is a digest of the looks that the file is to have, and what else the parts say.
func (a *address) key(kind string, parts ...string) digest.Digest {
	b, err := json.Marshal(struct {
		Kind       string
		Parts      []string
		Perm       uint32
		UID, GID   int
		AuthSecret string
		Header     []field
		Signature  *digest.Digest
	}{kind, parts, a.perm, a.uid, a.gid, a.authSecret, a.header, a.signatureKey()})
	if err != nil { // strings and numbers can be marshalled
		panic(err)
	}
	return digest.FromBytes(b)
}

// signatureKey makes a download that was checked another one than the same that was not.
func (a *address) signatureKey() *digest.Digest {
	if a.signature == nil {
		return nil
	}
	d := digest.FromBytes(append(slices.Clone(a.signature.key), a.signature.armored...))
	return &d
}

// answerKey names the answer that is kept for an address.
func (a *address) answerKey() digest.Digest { return a.key("berth http answer 1", a.url, a.filename) }

// fileKey names the snapshot that a download becomes.
func (a *address) fileKey(name string, content digest.Digest, modified *time.Time) digest.Digest {
	when := ""
	if modified != nil {
		when = modified.UTC().Format(nethttp.TimeFormat)
	}
	return a.key("berth http file 1", name, content.String(), when)
}

// name gives the name of the downloaded file: what the build says, else what the server says, else the last part of the address.
func (a *address) name(h nethttp.Header) string {
	if a.filename != "" {
		return safeName(a.filename)
	}
	if _, params, err := mime.ParseMediaType(h.Get("Content-Disposition")); err == nil {
		if n := params["filename"]; n != "" && !strings.HasSuffix(n, "/") {
			return safeName(n)
		}
	}
	if u, err := url.Parse(a.url); err == nil {
		if base := path.Base(u.Path); base != "." && base != "/" {
			return safeName(base)
		}
	}
	return safeName("")
}

// safeName makes a name of one file of what somebody wrote; what cannot be one becomes "download".
func safeName(s string) string {
	name := path.Base(strings.TrimSpace(s))
	if name == "." || name == ".." || name == "/" || len(name) > 255 || strings.ContainsFunc(name, unicode.IsControl) {
		return "download"
	}
	return name
}
