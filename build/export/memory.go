package export

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// memory remembers of layers what costs to find out: as which blob a layer travels, as which layer it goes on with its times rewritten,
// and when it was first exported. It is a cache: whatever is lost is found out again, and a blob's digest is verified before it is
// used for anything but a name.
//
//	ROOT/layers/ALGORITHM-HEX.json   of one layer, by diff id
type memory struct {
	dir string

	mu    sync.Mutex // guards what follows, and has one at a time work on the files, which are small
	known map[digest.Digest]*remembered
}

// remembered is what is known of a layer.
type remembered struct {
	Version   int                      `json:"version"`
	First     time.Time                `json:"first,omitzero"`      // when it was first exported
	Blobs     map[string]blobFact      `json:"blobs,omitempty"`     // by compression.key
	Rewritten map[string]digest.Digest `json:"rewritten,omitempty"` // by epoch, in seconds: the layer with no later times
}

// blobFact is a layer's blob.
type blobFact struct {
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// memoryVersion goes up when the compressor's bytes change: what an older one says is forgotten.
const memoryVersion = 1

// memoryMax bounds what is held in memory.
const memoryMax = 4096

func newMemory(root string) *memory {
	return &memory{dir: filepath.Join(root, "layers"), known: map[digest.Digest]*remembered{}}
}

func (m *memory) path(d digest.Digest) string {
	return filepath.Join(m.dir, d.Algorithm().String()+"-"+d.Encoded()+".json")
}

// load gives what is known of a layer. mu is held.
func (m *memory) load(d digest.Digest) *remembered {
	if r := m.known[d]; r != nil {
		return r
	}
	r := &remembered{}
	raw, err := os.ReadFile(m.path(d))
	if err != nil || json.Unmarshal(raw, r) != nil || r.Version != memoryVersion {
		r = &remembered{Version: memoryVersion, First: r.First}
	}
	if len(m.known) >= memoryMax {
		clear(m.known)
	}
	m.known[d] = r
	return r
}

// change changes what is known of a layer. That it cannot be kept is no failure.
func (m *memory) change(d digest.Digest, f func(*remembered)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.load(d)
	f(r)
	raw, err := json.Marshal(r)
	if err != nil {
		return
	}
	// Not durable: after a crash an older or an empty file is as good.
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return
	}
	tmp := m.path(d) + ".tmp"
	if err := os.WriteFile(tmp, raw, 0o600); err == nil {
		_ = os.Rename(tmp, m.path(d))
	}
}

// blob gives the blob that a layer becomes, where that is known.
func (m *memory) blob(d digest.Digest, key string) (blobFact, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.load(d).Blobs[key]
	return b, ok && b.Digest.Validate() == nil
}

func (m *memory) setBlob(d digest.Digest, key string, b blobFact) {
	if old, ok := m.blob(d, key); ok && old.Digest == b.Digest {
		return
	}
	m.change(d, func(r *remembered) {
		if r.Blobs == nil {
			r.Blobs = map[string]blobFact{}
		}
		r.Blobs[key] = b
	})
}

// rewritten gives the layer that another one becomes with no time later than the epoch.
func (m *memory) rewritten(d digest.Digest, epoch string) (digest.Digest, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	to, ok := m.load(d).Rewritten[epoch]
	return to, ok && to.Validate() == nil
}

func (m *memory) setRewritten(d digest.Digest, epoch string, to digest.Digest) {
	m.change(d, func(r *remembered) {
		if r.Rewritten == nil {
			r.Rewritten = map[string]digest.Digest{}
		}
		r.Rewritten[epoch] = to
	})
}

// first is when a layer was first exported: now, if it is now.
func (m *memory) first(d digest.Digest) time.Time {
	m.mu.Lock()
	first := m.load(d).First
	m.mu.Unlock()
	if first.IsZero() {
		first = time.Now().UTC()
		m.change(d, func(r *remembered) {
			if r.First.IsZero() {
				r.First = first
			}
			first = r.First
		})
	}
	return first
}

// forget removes what is known of layers that are gone, and what a crash left in the making.
func (e *Exporter) forget() {
	m := e.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if left, err := filepath.Glob(filepath.Join(e.cfg.Root, ".*-*")); err == nil { // scratch files and directories have such names for a moment
		for _, name := range left {
			os.RemoveAll(name)
		}
	}
	names, err := os.ReadDir(m.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Warn("the memory of layers cannot be read", "err", err)
	}
	for _, n := range names {
		alg, hex, ok := strings.Cut(strings.TrimSuffix(n.Name(), ".json"), "-")
		d := digest.NewDigestFromEncoded(digest.Algorithm(alg), hex)
		if ok && d.Validate() == nil && e.cfg.Images.Layers().Has(d) {
			continue
		}
		delete(m.known, d)
		os.Remove(filepath.Join(m.dir, n.Name()))
	}
}
