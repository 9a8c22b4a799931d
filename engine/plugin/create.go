package plugin

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/image/archive/compress"
	"berth/image/blob"
)

// Create makes a plugin of a tar with config.json and rootfs/, as docker plugin create sends it.
func (m *Manager) Create(ctx context.Context, name string, r io.Reader) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	name = tagged(name)
	if err := m.free(name); err != nil {
		return err
	}
	b := m.begin(name)
	defer b.drop()
	raw, diffID, err := b.read(ctx, r)
	if err != nil {
		return err
	}
	if raw, err = withRootfs(raw, diffID); err != nil {
		return err
	}
	if err := b.configure(raw); err != nil {
		return err
	}
	f, err := m.blobs.Open(b.p.Blobs[0].Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := b.unpack(ctx, 0, f); err != nil {
		return err
	}
	if err := b.finish(nil); err != nil {
		return err
	}
	m.emit("create", b.p)
	return nil
}

// read splits the context's tar: its rootfs becomes a compressed layer in the blob store. It gives the configuration and the
// layer's diff id.
func (b *building) read(ctx context.Context, r io.Reader) (config []byte, diffID digest.Digest, err error) {
	rc, _, err := compress.NewReader(r)
	if err != nil {
		return nil, "", err
	}
	defer rc.Close()
	w, err := b.m.blobs.Writer(ctx, blob.Want{Max: maxLayerSize})
	if err != nil {
		return nil, "", err
	}
	defer w.Abort()
	size := &counter{}
	zw := gzip.NewWriter(io.MultiWriter(w, size))
	plain := digest.SHA256.Digester()
	tw := tar.NewWriter(io.MultiWriter(zw, plain.Hash()))
	tr := tar.NewReader(rc)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, "", fault.Wrap(fault.Invalid, err, "reading the plugin's archive")
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		switch rest, inside := strings.CutPrefix(name, "rootfs/"); {
		case name == "config.json":
			if config, err = io.ReadAll(io.LimitReader(tr, maxConfig+1)); err != nil {
				return nil, "", fault.Wrap(fault.Invalid, err, "reading the plugin's archive")
			}
		case inside:
			h.Name = rest
			if h.Typeflag == tar.TypeDir {
				h.Name += "/"
			}
			if h.Typeflag == tar.TypeLink {
				target, ok := strings.CutPrefix(strings.TrimPrefix(path.Clean("/"+h.Linkname), "/"), "rootfs/")
				if !ok {
					return nil, "", fault.New(fault.Invalid, "the plugin's archive: %s is a link out of rootfs", h.Name)
				}
				h.Linkname = target
			}
			h.Format = tar.FormatPAX
			if err := tw.WriteHeader(h); err != nil {
				return nil, "", fault.Wrap(fault.Invalid, err, "reading the plugin's archive")
			}
			if _, err := io.Copy(tw, tr); err != nil {
				return nil, "", err
			}
		}
	}
	if config == nil {
		return nil, "", fault.New(fault.Invalid, "config.json not found")
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		return nil, "", err
	}
	d, err := w.Commit()
	if err != nil {
		return nil, "", err
	}
	b.held = append(b.held, d)
	b.p.Blobs = []Blob{{MediaType: layerType, Digest: d, Size: size.n}}
	return config, plain.Digest(), nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// withRootfs notes in a configuration which layer it has; everything else of it stays.
func withRootfs(raw []byte, diffID digest.Digest) ([]byte, error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "reading the plugin's configuration")
	}
	for k := range fields {
		if strings.EqualFold(k, "rootfs") {
			delete(fields, k)
		}
	}
	rootfs, err := json.Marshal(map[string]any{"type": "layers", "diff_ids": []digest.Digest{diffID}})
	if err != nil {
		return nil, err
	}
	fields["rootfs"] = rootfs
	return json.Marshal(fields)
}
