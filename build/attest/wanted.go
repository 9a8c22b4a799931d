package attest

import (
	"strconv"
	"strings"

	"github.com/tonistiigi/go-csvvalue"

	"berth/base/fault"
)

// Wanted is what a client wants attested of its build.
type Wanted struct {
	Provenance *ProvenanceOptions // nil: nothing
	SBOM       *SBOMOptions       // nil: nothing
}

// ProvenanceOptions say how a provenance is written.
type ProvenanceOptions struct {
	Version      string // v1 or v0.2: of SLSA
	Min          bool   // mode=min: no arguments, no steps, no Dockerfile
	InlineOnly   bool   // only for images that stay images
	BuilderID    string // URL of who built it
	Filename     string // what the document is called beside files
	Reproducible bool   // the client says so
	Complete     bool   // complete-materials: a source without a digest is an error
}

// SBOMOptions say how a bill of materials is made.
type SBOMOptions struct {
	Generator string            // image that scans; "": Scan of this package
	Params    map[string]string // for the generator: BUILDKIT_SCAN_KEY=VALUE
}

// The frontend attributes that ask for attestations: attest:TYPE, and for Dockerfiles that ask for themselves a build argument.
const (
	attrPrefix = "attest:"
	argPrefix  = "build-arg:BUILDKIT_ATTEST_"
)

// Parse reads what frontend attributes ask for. Errors are Invalid.
func Parse(attrs map[string]string) (w Wanted, err error) {
	for _, prefix := range []string{argPrefix, attrPrefix} { // the client's own word is the last
		for k, v := range attrs {
			kind, ok := strings.CutPrefix(k, prefix)
			if !ok {
				continue
			}
			fields, err := fields(v)
			if err != nil {
				return w, fault.Wrap(fault.Invalid, err, "failed to parse %s", k)
			}
			switch strings.ToLower(kind) {
			case "sbom":
				w.SBOM = sbomOptions(fields)
			case "provenance":
				if w.Provenance, err = provenanceOptions(fields); err != nil {
					return w, err
				}
			default:
				return w, fault.New(fault.Invalid, "unknown attestation type %q", kind)
			}
		}
	}
	return w, nil
}

// Frontend gives the attributes that a frontend is to see: one that makes bills of materials itself would fetch a scanner for them, so it is
// told of them only where the client names the scanner.
func (w Wanted) Frontend(attrs map[string]string) map[string]string {
	out := make(map[string]string, len(attrs))
	for k, v := range attrs {
		kind, isAttr := strings.CutPrefix(k, attrPrefix)
		arg, isArg := strings.CutPrefix(k, argPrefix)
		sbom := isAttr && strings.EqualFold(kind, "sbom") || isArg && strings.EqualFold(arg, "sbom")
		if sbom && (w.SBOM == nil || w.SBOM.Generator == "") {
			continue
		}
		out[k] = v
	}
	return out
}

func fields(v string) (map[string]string, error) {
	out := map[string]string{}
	if v == "" {
		return out, nil
	}
	list, err := csvvalue.Fields(v, nil)
	if err != nil {
		return nil, err
	}
	for _, f := range list {
		k, v, _ := strings.Cut(f, "=")
		out[k] = v
	}
	return out, nil
}

func sbomOptions(fields map[string]string) *SBOMOptions {
	o := &SBOMOptions{Params: map[string]string{}}
	for k, v := range fields {
		if k == "generator" {
			o.Generator = v
			continue
		}
		o.Params[k] = v
	}
	return o
}

func provenanceOptions(fields map[string]string) (*ProvenanceOptions, error) {
	o := &ProvenanceOptions{Version: "v1", Filename: "provenance.json", BuilderID: fields["builder-id"]}
	for k, v := range fields {
		var err error
		switch k {
		case "version":
			o.Version = v
			if v != "v1" && v != "v0.2" {
				err = fault.New(fault.Invalid, "invalid provenance SLSA version: %s", v)
			}
		case "mode":
			switch v {
			case "min":
				o.Min = true
			case "max", "full", "":
			default:
				err = fault.New(fault.Invalid, "invalid mode %q", v)
			}
		case "inline-only":
			o.InlineOnly, _ = strconv.ParseBool(v)
		case "filename":
			o.Filename = v
		case "reproducible":
			o.Reproducible, err = parseBool(k, v)
		case "complete-materials":
			o.Complete, err = parseBool(k, v)
		}
		if err != nil {
			return nil, err
		}
	}
	return o, nil
}

func parseBool(k, v string) (bool, error) {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fault.New(fault.Invalid, "failed to parse %s flag %q", k, v)
	}
	return b, nil
}
