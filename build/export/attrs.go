package export

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	commontypes "github.com/moby/buildkit/exporter/exptypes"

	"berth/base/fault"
	"berth/base/ref"
)

// imageOptions are the attributes of outputs that make an image, in BuildKit's words.
type imageOptions struct {
	names         []ref.Ref // with tags, or with digests where push-by-digest or a dangling name made them
	namesFromMeta bool      // name=*: the frontend says it
	push          bool
	byDigest      bool
	insecure      bool
	store         bool
	whole         bool // type=image: who asks for it in BuildKit's words gets a manifest, as there
	oci           bool // media types; set tells whether anybody asked
	ociSet        bool
	artifact      *bool // oci-artifact
	inline        bool  // attestations that are only for images that stay images are attached too
	canonical     bool
	danglingOnly  bool   // danging-name-empty-only
	dangling      string // dangling-name-prefix
	rewrite       bool   // rewrite-timestamp
	epoch         epoch
	squash        bool
	compression   compression
	annotations   annotations
	archive       bool              // oci, docker: the bytes go to the client
	tar           bool              // of these: in one archive, or content by content
	meta          map[string][]byte // what else was said is the frontend's word, overridden
}

// epoch is SOURCE_DATE_EPOCH as an attribute: set may be true with no time, which switches the frontend's off.
type epoch struct {
	set  bool
	time *time.Time
}

// parseImage reads the attributes of an output that makes an image.
func parseImage(kind string, attrs map[string]string) (*imageOptions, error) {
	o := &imageOptions{oci: true, tar: true, archive: kind == OCI || kind == Docker, meta: map[string][]byte{}}
	o.store, o.whole = !o.archive, kind == Image
	var err error
	if o.annotations, attrs, err = parseAnnotations(attrs); err != nil {
		return nil, err
	}
	if o.compression, attrs, err = parseCompression(attrs); err != nil {
		return nil, err
	}
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		if err := o.set(k, attrs[k]); err != nil {
			return nil, err
		}
	}
	if _, ok := attrs[string(exptypes.OptKeyForceInlineAttestations)]; !ok {
		// What buildx attests without being asked is for images at a registry. One that stays here would need compressed layers for it,
		// and get another digest each time.
		o.inline = o.push
	}
	switch {
	case o.compression.ociOnly() && !o.oci:
		return nil, fault.New(fault.Invalid, `exporter option "compression=%s" conflicts with "oci-mediatypes=false"`, o.compression.kind)
	case o.artifact != nil && *o.artifact && !o.oci:
		return nil, fault.New(fault.Invalid, `exporter option "oci-artifact=true" conflicts with "oci-mediatypes=false"`)
	case o.push && o.byDigest && len(o.names) == 0 && !o.namesFromMeta:
		return nil, fault.New(fault.Invalid, "a name is needed to push by digest: name=HOST/REPOSITORY")
	}
	return o, nil
}

// set takes one attribute.
func (o *imageOptions) set(k, v string) (err error) {
	switch exptypes.ImageExporterOptKey(k) {
	case exptypes.OptKeyName:
		o.namesFromMeta = v == "*"
		if !o.namesFromMeta {
			o.names, err = parseNames(v)
		}
	case exptypes.OptKeyPush:
		o.push, err = parseFlag(k, v)
	case exptypes.OptKeyPushByDigest:
		o.byDigest, err = parseFlag(k, v)
	case exptypes.OptKeyInsecure:
		o.insecure, err = parseFlag(k, v)
	case exptypes.OptKeyUnpack: // an image of the engine's store always is
		_, err = parseFlag(k, v)
	case exptypes.OptKeyStore:
		o.store, err = parseFlag(k, v)
	case exptypes.OptKeyDanglingPrefix:
		o.dangling = v
	case exptypes.OptKeyDanglingEmptyOnly:
		o.danglingOnly, err = parseFlag(k, v)
	case exptypes.OptKeyNameCanonical:
		o.canonical, err = parseFlag(k, v)
	case exptypes.OptKeyOCITypes:
		o.oci, err = parseBool(k, v)
		o.ociSet = true
	case exptypes.OptKeyOCIArtifact:
		var b bool
		b, err = parseBool(k, v)
		o.artifact = &b
	case exptypes.OptKeyForceInlineAttestations:
		o.inline, err = parseBool(k, v)
	case exptypes.OptKeyPreferNondistLayers: // layers that may not be distributed have no blobs here
		_, err = parseBool(k, v)
	case exptypes.OptKeyRewriteTimestamp:
		o.rewrite, err = parseBool(k, v)
	case exptypes.ImageExporterOptKey(commontypes.OptKeySourceDateEpoch):
		o.epoch.set = true
		o.epoch.time, err = parseEpoch(v)
	case "squash":
		o.squash, err = parseFlag(k, v)
	case "tar":
		o.tar, err = parseFlag(k, v)
	case "prefer-image-digest", "buildinfo", "buildinfo-attrs", "dest", "context": // the client's own, or of BuildKits that are gone
	default:
		o.meta[k] = []byte(v)
	}
	return err
}

// parseNames reads a list of names, separated by commas. A name without a tag means latest.
func parseNames(list string) (names []ref.Ref, err error) {
	for _, s := range strings.Split(list, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		n, err := ref.Parse(s)
		if err != nil {
			return nil, fault.In(err, "failed to parse %s", s)
		}
		if n.Digest == "" {
			n = n.WithDefaultTag()
		}
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names, nil
}

// parseFlag reads an attribute that also means true when it is only there.
func parseFlag(k, v string) (bool, error) {
	if v == "" {
		return true, nil
	}
	return parseBool(k, v)
}

func parseBool(k, v string) (bool, error) {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fault.New(fault.Invalid, "non-bool value specified for %s: %q", k, v)
	}
	return b, nil
}

// parseEpoch reads seconds since 1970; "" is none.
func parseEpoch(v string) (*time.Time, error) {
	if v == "" {
		return nil, nil
	}
	sec, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return nil, fault.New(fault.Invalid, "invalid SOURCE_DATE_EPOCH: %q is no number of seconds", v)
	}
	t := time.Unix(sec, 0).UTC()
	return &t, nil
}

// epochOf is the time that nothing of a platform's result may be later than: the output's, else the frontend's; nil for none.
func (e epoch) of(meta map[string][]byte, platform string) (*time.Time, error) {
	if e.set {
		return e.time, nil
	}
	for _, k := range []string{commontypes.ExporterEpochKey + "/" + platform, commontypes.ExporterEpochKey} {
		if v, ok := meta[k]; ok {
			return parseEpoch(string(v))
		}
	}
	return nil, nil
}
