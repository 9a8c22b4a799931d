package export

import (
	"maps"
	"slices"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// annotations are what is to be written on documents: by platform ("" is every one), and by the document. Keys come as
// annotation[-TYPE][PLATFORM].KEY, from the output's attributes and from the frontend.
type annotations map[string]map[string]map[string]string

// parseAnnotations takes the annotations out of attributes and gives the rest.
func parseAnnotations(attrs map[string]string) (annotations, map[string]string, error) {
	a, rest := annotations{}, map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		key, ok, err := exptypes.ParseAnnotationKey(k)
		if err != nil {
			return nil, nil, fault.Wrap(fault.Invalid, err, "annotation %s", k)
		}
		if !ok {
			rest[k] = attrs[k]
			continue
		}
		a.add(key.PlatformString(), key.Type, key.Key, attrs[k])
	}
	return a, rest, nil
}

// fromMeta adds what the frontend wants annotated.
func (a annotations) fromMeta(meta map[string][]byte) (annotations, error) {
	attrs := make(map[string]string, len(meta))
	for k, v := range meta {
		attrs[k] = string(v)
	}
	out, _, err := parseAnnotations(attrs)
	if err != nil {
		return nil, err
	}
	for p, types := range a { // the output's word is the last
		for typ, list := range types {
			for k, v := range list {
				out.add(p, typ, k, v)
			}
		}
	}
	return out, nil
}

func (a annotations) add(platform, typ, key, value string) {
	if a[platform] == nil {
		a[platform] = map[string]map[string]string{}
	}
	if a[platform][typ] == nil {
		a[platform][typ] = map[string]string{}
	}
	a[platform][typ][key] = value
}

// any reports whether there are annotations of one of the types.
func (a annotations) any(types ...string) bool {
	for _, byType := range a {
		for _, t := range types {
			if len(byType[t]) > 0 {
				return true
			}
		}
	}
	return false
}

// index gives those of the index, or with AnnotationIndexDescriptor of what names it. They belong to no platform.
func (a annotations) index(typ string) map[string]string {
	var out map[string]string
	for _, p := range slices.Sorted(maps.Keys(a)) {
		out = merge(out, a[p][typ])
	}
	return out
}

// of gives those of a platform's manifest, or with AnnotationManifestDescriptor of what names it.
func (a annotations) of(p *ocispec.Platform, typ string) map[string]string {
	out := merge(nil, a[""][typ])
	if p != nil {
		out = merge(out, a[platforms.FormatAll(*p)][typ])
	}
	return out
}

func merge(a, b map[string]string) map[string]string {
	if len(b) == 0 {
		return a
	}
	if a == nil {
		a = map[string]string{}
	}
	maps.Copy(a, b)
	return a
}

// check refuses annotations that would be written nowhere.
func (a annotations) check(oci, index bool, has func(platform string) bool) error {
	for p := range a {
		if p != "" && !has(p) {
			return fault.New(fault.Invalid, "invalid annotation: no platform %s found in source", p)
		}
	}
	if !oci && a.any(exptypes.AnnotationIndex, exptypes.AnnotationIndexDescriptor, exptypes.AnnotationManifestDescriptor) {
		return fault.New(fault.Invalid, `cannot export annotations with "oci-mediatypes=false"`)
	}
	if !index && a.any(exptypes.AnnotationIndex, exptypes.AnnotationIndexDescriptor) {
		return fault.New(fault.Invalid, "index annotations not supported for single platform export")
	}
	return nil
}
