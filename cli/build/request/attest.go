package request

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
)

// Attest asks for, or with Disabled against, an attestation of a kind beside the image.
type Attest struct {
	Type     string // provenance, sbom
	Disabled bool
	Attrs    map[string]string
}

// ParseAttests reads --attest texts, and --provenance and --sbom as their shorthands. The last of a kind wins.
func ParseAttests(values []string, provenance, sbom string) ([]Attest, error) {
	values = append([]string{}, values...)
	for _, short := range [][2]string{{"provenance", provenance}, {"sbom", sbom}} {
		if short[1] == "" {
			continue
		}
		text := "type=" + short[0] + "," + short[1]
		if on, err := strconv.ParseBool(short[1]); err == nil {
			text = fmt.Sprintf("type=%s,disabled=%t", short[0], !on)
		}
		values = append(values, text)
	}
	var all []Attest
	for _, text := range values {
		a := Attest{Attrs: map[string]string{}}
		err := pairs(text, func(k, v string, bare bool) (err error) {
			if bare {
				return fmt.Errorf("invalid value %s", k)
			}
			switch strings.TrimSpace(strings.ToLower(k)) {
			case "type":
				a.Type = v
			case "disabled":
				if a.Disabled, err = strconv.ParseBool(v); err != nil {
					return fmt.Errorf("invalid value %s=%s: %w", k, v, err)
				}
			default:
				a.Attrs[k] = v
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if a.Type == "" {
			return nil, errors.New("attestation type not specified")
		}
		all = append(all, a)
	}
	return all, nil
}

// String is the text that ParseAttests reads.
func (a Attest) String() string {
	first := []string{"type=" + a.Type}
	if a.Disabled {
		first = append(first, "disabled=true")
	}
	return Join(first, a.Attrs)
}

// attestAttrs puts attestations into the frontend's attributes. provenance is on in its small form unless somebody spoke about it.
func attestAttrs(all []Attest, attrs map[string]string, byDefault bool) {
	spoken := false
	for _, a := range all {
		spoken = spoken || a.Type == "provenance"
		if a.Disabled {
			delete(attrs, "attest:"+a.Type)
			continue
		}
		attrs["attest:"+a.Type] = a.String()
	}
	if !spoken && byDefault {
		attrs["attest:provenance"] = "mode=min,inline-only=true"
	}
}

// annotations gives the exporter attributes for --annotation texts: [TYPE[PLATFORM],…:]KEY=VALUE.
func annotations(values []string) (map[string]string, error) {
	place := regexp.MustCompile(`^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$`) // a type, with a platform in brackets
	attrs := map[string]string{}
	for _, text := range values {
		if text == "" {
			continue
		}
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("invalid annotation %q, expected key=value", text)
		}
		kinds, key, ok := strings.Cut(name, ":")
		if !ok {
			attrs[(exptypes.AnnotationKey{Key: name}).String()] = value
			continue
		}
		for kind := range strings.SplitSeq(kinds, ",") {
			k := exptypes.AnnotationKey{Key: key}
			m := place.FindStringSubmatch(kind)
			if m == nil {
				return nil, fmt.Errorf("invalid annotation type %q, expected type and optional platform in square brackets", kind)
			}
			switch k.Type = m[1]; k.Type {
			case exptypes.AnnotationIndex, exptypes.AnnotationIndexDescriptor, exptypes.AnnotationManifest, exptypes.AnnotationManifestDescriptor:
			default:
				return nil, fmt.Errorf("unknown annotation type %q", k.Type)
			}
			if m[2] != "" {
				p, err := platforms.Parse(m[2])
				if err != nil {
					return nil, fmt.Errorf("invalid platform %q: %w", m[2], err)
				}
				k.Platform = &p
			}
			attrs[k.String()] = value
		}
	}
	return attrs, nil
}
