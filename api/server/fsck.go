package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
	"berth/image/remote"
)

// checks are the verbs by which the image store is verified and repaired.
type checks interface {
	Check(ctx context.Context) (*image.Checkup, error)
	Repair(ctx context.Context, c *image.Checkup, fetch image.Fetch) error
}

// fsckLine is one line of the answer to POST /berth/v1/images/fsck. One of its fields is set.
type fsckLine struct {
	Status string      `json:"status,omitempty"` // what goes on: "checking", then "repairing"
	Damage *fsckDamage `json:"damage,omitempty"` // found; again with what became of it when it was to be repaired
	Sum    *fsckSum    `json:"sum,omitempty"`    // the last line
	Error  string      `json:"error,omitempty"`  // instead of it: the check was cut short
}

type fsckDamage struct {
	Part     string   `json:"part"`
	Subject  string   `json:"subject"` // digest, name or path below the store
	Images   []string `json:"images"`
	What     string   `json:"what"`
	Local    bool     `json:"local,omitempty"`  // what is here is enough to repair it
	Source   string   `json:"source,omitempty"` // repository from which it can be fetched
	Fetch    int64    `json:"fetch,omitempty"`  // bytes of that
	Tried    bool     `json:"tried,omitempty"`
	Repaired bool     `json:"repaired,omitempty"`
	Failed   string   `json:"failed,omitempty"` // why it could not be repaired
}

type fsckSum struct {
	Images    int   `json:"images"`
	Names     int   `json:"names"`
	Documents int   `json:"documents"`
	Blobs     int   `json:"blobs"` // kept compressed layers
	Layers    int   `json:"layers"`
	Bytes     int64 `json:"bytes"` // that were read
	Damaged   int   `json:"damaged"`
	Repaired  int   `json:"repaired"`
}

// imageFsck verifies the image store, line by line, and with repair=1 repairs what it can: from what is here, else from where it came.
func imageFsck(s *Server, c *call) error {
	creds, err := registryConfig(c.r.Header.Get("X-Registry-Config"))
	if err != nil {
		return err
	}
	tell := func(l fsckLine) {
		if b, err := json.Marshal(l); err == nil {
			c.line(b)
		}
	}
	tell(fsckLine{Status: "checking"})
	found, err := s.cfg.Images.Check(c.ctx())
	if err != nil {
		tell(fsckLine{Error: err.Error()})
		return nil
	}
	for i := range found.Damages {
		tell(fsckLine{Damage: damage(&found.Damages[i], false)})
	}
	if c.flag("repair") && len(found.Damages) > 0 {
		tell(fsckLine{Status: "repairing"})
		err = s.cfg.Images.Repair(c.ctx(), found, s.fetcher(creds))
		for i := range found.Damages {
			tell(fsckLine{Damage: damage(&found.Damages[i], true)})
		}
		if err != nil {
			tell(fsckLine{Error: err.Error()})
			return nil
		}
	}
	sum := &fsckSum{Images: found.Images, Names: found.Names, Documents: found.Documents, Blobs: found.Kept, Layers: found.Layers, Bytes: found.Bytes, Damaged: len(found.Damages)}
	for _, d := range found.Damages {
		if d.Repaired {
			sum.Repaired++
		}
	}
	tell(fsckLine{Sum: sum})
	return nil
}

func damage(d *image.Damage, tried bool) *fsckDamage {
	out := &fsckDamage{Part: string(d.Part), Subject: d.Subject, Images: nonNil(d.Images), What: d.What, Local: d.Local, Tried: tried, Repaired: d.Repaired, Failed: d.Failed}
	if len(d.Sources) > 0 {
		out.Source, out.Fetch = d.Sources[0].Repository, d.Sources[0].Descriptor.Size
	}
	if d.From != "" {
		out.Source = d.From
	}
	return out
}

// line writes a line of a stream of JSON texts, at once.
func (c *call) line(b []byte) {
	if !c.began {
		c.w.Header().Set("Content-Type", "application/x-ndjson")
		c.begin(http.StatusOK)
	}
	_, _ = c.w.Write(append(b, '\n'))
	_ = http.NewResponseController(c.w).Flush()
}

// fetcher gets what is damaged from its registry again.
func (s *Server) fetcher(creds map[string]remote.Credentials) image.Fetch {
	return func(ctx context.Context, src image.Source) (io.ReadCloser, error) {
		if s.cfg.Registries == nil {
			return nil, fault.New(fault.NotImplemented, "talking to registries is not in this build of Berth")
		}
		name, err := ref.Parse(src.Repository)
		if err != nil {
			return nil, fault.In(err, "source of %s", src.Descriptor.Digest)
		}
		at := s.cfg.Registries.Repository(name, creds[name.Domain])
		switch src.Descriptor.MediaType {
		case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
			"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json":
			doc, err := at.Manifest(ctx, src.Descriptor.Digest.String())
			if err != nil {
				return nil, err
			}
			return io.NopCloser(bytes.NewReader(doc.Content)), nil
		}
		return at.Blob(ctx, src.Descriptor, 0)
	}
}

// registryConfig reads credentials for several registries, by host: the header X-Registry-Config of Docker's POST /build.
func registryConfig(header string) (map[string]remote.Credentials, error) {
	out := map[string]remote.Credentials{}
	if header == "" {
		return out, nil
	}
	text, err := base64.URLEncoding.DecodeString(header)
	var all map[string]registry.AuthConfig
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "invalid X-Registry-Config header")
	}
	for host, a := range all {
		if host == "https://index.docker.io/v1/" || host == "index.docker.io" {
			host = "docker.io"
		}
		out[host] = wire.Credentials(&a)
	}
	return out, nil
}
