package export

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// historyComment marks history that the frontend did not write, as BuildKit has it.
const historyComment = "buildkit.exporter.image.v0"

// inlineCacheKey is the field of a configuration with the inline cache.
const inlineCacheKey = "moby.buildkit.cache.v0"

// defaultPath is the PATH of an image whose frontend gave no configuration.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// madeLayer is what is known of a layer's making: when, and by which step.
type madeLayer struct {
	created time.Time
	by      string
	find    func() time.Time // asked where created is zero and the history does not say; nil: nobody knows
}

// time is when the layer was made; nil: nobody knows.
func (m *madeLayer) time() *time.Time {
	if m.created.IsZero() && m.find != nil {
		m.created = m.find()
	}
	if m.created.IsZero() {
		return nil
	}
	t := m.created.UTC()
	return &t
}

// configInput is what a configuration is completed from.
type configInput struct {
	config []byte          // the frontend's; nil: it gave none
	base   []byte          // the base image's, where the frontend tells it
	chain  []digest.Digest // of the layers that the image has
	made   []madeLayer     // of each layer
	epoch  *time.Time      // nothing new is later than this
	cache  []byte          // inline cache records, or nil

	squashed bool // the layers above the base's are one now
}

// completeConfig completes a configuration: its layers, its history (an entry for each layer) and its times. Fields that nobody here
// knows stay as they are. The same input gives the same bytes.
func completeConfig(in configInput) ([]byte, error) {
	config := in.config
	if len(config) == 0 {
		var err error
		if config, err = emptyConfig(); err != nil {
			return nil, err
		}
	}
	var img ocispec.Image
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(config, &img); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "invalid image config for export")
	}
	if err := json.Unmarshal(config, &fields); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "invalid image config for export")
	}
	if fields == nil {
		return nil, fault.New(fault.Invalid, "invalid null image config for export")
	}
	if img.OS == "" || img.Architecture == "" {
		return nil, fault.New(fault.Invalid, "invalid image config for export: missing os or architecture")
	}
	var base struct{ History []ocispec.History }
	if len(in.base) > 0 {
		if err := json.Unmarshal(in.base, &base); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "invalid base image config for export")
		}
	}
	if in.squashed {
		img.History = squashHistory(img.History, len(in.chain)-1)
	}
	history := completeHistory(img.History, in.made)
	if in.epoch != nil {
		clampHistory(history, base.History, *in.epoch)
	}
	set := func(key string, v any) error {
		raw, err := json.Marshal(v)
		fields[key] = raw
		return err
	}
	if err := set("rootfs", ocispec.RootFS{Type: "layers", DiffIDs: in.chain}); err != nil {
		return nil, err
	}
	if err := set("history", history); err != nil {
		return nil, err
	}
	created, err := completeCreated(fields["created"], history, in.epoch)
	if err != nil {
		return nil, err
	}
	if err := set("created", created); err != nil {
		return nil, err
	}
	if len(in.cache) > 0 {
		if err := set(inlineCacheKey, in.cache); err != nil {
			return nil, err
		}
	}
	return json.Marshal(fields)
}

// emptyConfig is the configuration of a result whose frontend says nothing of it.
func emptyConfig() ([]byte, error) {
	p := platforms.Normalize(platforms.DefaultSpec())
	img := ocispec.Image{Platform: ocispec.Platform{Architecture: p.Architecture, OS: p.OS, Variant: p.Variant}}
	img.RootFS.Type = "layers"
	img.Config.WorkingDir = "/"
	img.Config.Env = []string{defaultPath}
	return json.Marshal(img)
}

// completeHistory makes a history have one entry with a layer for each layer, and every entry a time.
func completeHistory(in []ocispec.History, made []madeLayer) []ocispec.History {
	history, layers := make([]ocispec.History, 0, len(in)), 0
	for _, h := range in {
		// More entries than layers should not be; then the last are told to be empty.
		h.EmptyLayer = h.EmptyLayer || layers >= len(made)
		if !h.EmptyLayer {
			if h.Created == nil {
				h.Created = made[layers].time()
			}
			layers++
		}
		history = append(history, h)
	}
	for _, m := range made[layers:] {
		history = append(history, ocispec.History{Created: m.time(), CreatedBy: m.by, Comment: historyComment})
	}
	fillTimes(history)
	return history
}

// squashHistory says of the entries above the base's layers that they have none, and adds one for the layer that they have become, as
// docker build --squash does.
func squashHistory(in []ocispec.History, base int) (out []ocispec.History) {
	layers := 0
	for _, h := range in {
		if !h.EmptyLayer {
			layers++
			h.EmptyLayer = layers > base
		}
		out = append(out, h)
	}
	return append(out, ocispec.History{Comment: "squashed"})
}

// fillTimes gives entries without a time that of the first new layer, or of the layer before them.
func fillTimes(history []ocispec.History) {
	var first *time.Time // of the first layer behind an entry without a time; else the last time there is
	missing := false
	for _, h := range history {
		if h.Created == nil {
			missing = true
			continue
		}
		first = h.Created
		if missing {
			break
		}
	}
	now, missing := first, false
	for i := range history {
		if history[i].Created == nil {
			missing = true
			history[i].Created = now
		} else if missing {
			now = history[i].Created
		}
	}
}

// clampHistory brings entries down to the epoch, except those of the base image.
func clampHistory(history, base []ocispec.History, epoch time.Time) {
	new := false
	for i, h := range history {
		if !new && i < len(base) && reflect.DeepEqual(h, base[i]) {
			continue
		}
		new = true
		if h.Created == nil || h.Created.After(epoch) {
			history[i].Created = &epoch
		}
	}
}

// completeCreated is when the image was made: what the configuration says, else the time of the last entry.
func completeCreated(raw json.RawMessage, history []ocispec.History, epoch *time.Time) (*time.Time, error) {
	var created *time.Time
	if raw != nil {
		if err := json.Unmarshal(raw, &created); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "invalid image config for export: created")
		}
	} else {
		for _, h := range history {
			if h.Created != nil {
				created = h.Created
			}
		}
	}
	if epoch != nil && created != nil && created.After(*epoch) {
		created = epoch
	}
	return created, nil
}
