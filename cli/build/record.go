package build

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/docker/cli/cli/command"
	control "github.com/moby/buildkit/api/services/control"
	provenance "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// builderName is what the engine is called where clients name builders: the context's name.
func builderName(d *command.DockerCli) string {
	if name := d.CurrentContext(); name != "" {
		return name
	}
	return command.DefaultContextName
}

// addRecord adds what the engine's history knows of a build to its metadata: its name there, warnings and provenance. That the
// history has nothing, or no longer, is no failure of the build.
func addRecord(ctx context.Context, d *command.DockerCli, c *conn, a *answer, m map[string]any) {
	name := builderName(d)
	m["buildx.build.ref"] = name + "/" + name + "/" + a.ref
	if on := os.Getenv("BUILDX_METADATA_WARNINGS"); on == "1" || on == "true" {
		if len(a.warnings) > 0 {
			m["buildx.build.warnings"] = a.warnings
		}
	}
	mode := os.Getenv("BUILDX_METADATA_PROVENANCE")
	if mode == "disabled" || mode == "false" {
		return
	}
	found, err := c.provenance(ctx, a.ref, mode == "max")
	if err != nil {
		fmt.Fprintf(d.Err(), "WARNING: no provenance in the metadata file: %v\n", err)
		return
	}
	for k, v := range found {
		m[k] = v
	}
}

// provenance reads the provenance of a build from the history. The small form leaves out what is large and of use to few.
func (c *conn) provenance(ctx context.Context, ref string, full bool) (map[string]json.RawMessage, error) {
	record, err := c.record(ctx, ref)
	if err != nil || record == nil {
		return nil, err
	}
	found := map[string]json.RawMessage{}
	add := func(key string, result *control.BuildResultInfo) error {
		desc, ok := provenanceOf(result)
		if !ok {
			return nil
		}
		text, err := c.blob(ctx, desc)
		if err != nil {
			return err
		}
		if text, err = asFirst(text, desc.Annotations["in-toto.io/predicate-type"], full); err != nil {
			return err
		}
		found[key] = text
		return nil
	}
	if len(record.Results) > 0 {
		for platform, result := range record.Results {
			if err := add("buildx.build.provenance/"+platform, result); err != nil {
				return nil, err
			}
		}
		return found, nil
	}
	return found, add("buildx.build.provenance", record.Result)
}

// record gives a build of the history by its id; nil when it is not there.
func (c *conn) record(ctx context.Context, ref string) (*control.BuildHistoryRecord, error) {
	all, err := c.records(ctx, ref)
	return all[ref], err
}

func provenanceOf(r *control.BuildResultInfo) (ocispec.Descriptor, bool) {
	if r == nil {
		return ocispec.Descriptor{}, false
	}
	for _, a := range r.Attestations {
		if a.MediaType == "application/vnd.in-toto+json" && strings.HasPrefix(a.Annotations["in-toto.io/predicate-type"], "https://slsa.dev/provenance/") {
			return ocispec.Descriptor{MediaType: a.MediaType, Digest: digest.Digest(a.Digest), Size: a.Size, Annotations: a.Annotations}, true
		}
	}
	return ocispec.Descriptor{}, false
}

// asFirst gives a provenance in the form that readers of metadata files know, SLSA 0.2, whatever form it is in. The small one is without the steps
// and without what only the engine knows.
func asFirst(text []byte, predicateType string, full bool) ([]byte, error) {
	first := &provenance.ProvenancePredicateSLSA02{}
	if predicateType == slsa1 {
		var second provenance.ProvenancePredicateSLSA1
		if err := json.Unmarshal(text, &second); err != nil {
			return nil, err
		}
		first = second.ConvertToSLSA02()
	} else if err := json.Unmarshal(text, first); err != nil {
		return nil, err
	}
	if !full {
		first.BuildConfig, first.Metadata = nil, nil
	}
	return json.Marshal(first)
}

// slsa1 is the predicate type of SLSA's version 1.
const slsa1 = "https://slsa.dev/provenance/v1"
