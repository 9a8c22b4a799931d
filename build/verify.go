package build

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/progress"
)

// verifyPlatforms warns of a result that is not for the platforms that were asked for.
func (j *job) verifyPlatforms() error {
	warnings, err := platformWarnings(j.req.FrontendAttrs["platform"], j.result)
	for _, w := range warnings {
		j.run.hub.Warning(progress.Warning{Vertex: digest.FromString(j.req.ID + "/result"), Level: 1, Short: []byte(w)})
	}
	return err
}

// platformWarnings compares what was asked for, a list by commas or "" for the engine's own, with the result.
func platformWarnings(asked string, res *gateway.Result) (warnings []string, err error) {
	_, told := res.Metadata[exptypes.ExporterPlatformsKey]
	switch {
	case !told && len(res.Refs) > 0:
		return nil, fault.New(fault.Invalid, "build result contains multiple refs without platforms mapping")
	case !told && res.IsEmpty():
		return nil, nil // the answer to a question, not something built
	}
	got, err := exptypes.ParsePlatforms(res.Metadata)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "platforms of the result")
	}
	if asked == "" {
		asked = platforms.Format(platforms.Normalize(platforms.DefaultSpec()))
	}
	var want []string
	for name := range strings.SplitSeq(asked, ",") {
		p, err := platforms.Parse(name)
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("Invalid platform result requested %q: %s", name, err))
			continue
		}
		full := platforms.FormatAll(platforms.Normalize(p))
		if slices.Contains(want, full) {
			warnings = append(warnings, fmt.Sprintf("Duplicate platform result requested %q", name))
		}
		want = append(want, full)
	}
	if len(warnings) > 0 {
		return warnings, nil
	}
	fits := func(p exptypes.Platform) bool {
		n := platforms.Normalize(p.Platform)
		if slices.Contains(want, platforms.FormatAll(n)) {
			return true
		}
		n.OSVersion = "" // of Windows: seldom asked for, always told
		return slices.Contains(want, platforms.FormatAll(n))
	}
	have := make([]string, 0, len(got.Platforms))
	all := len(want) == len(got.Platforms)
	for _, p := range got.Platforms {
		have = append(have, platforms.FormatAll(platforms.Normalize(p.Platform)))
		all = all && fits(p)
	}
	switch {
	case all:
		return nil, nil
	case len(want) == 1 && len(have) == 1:
		return []string{fmt.Sprintf("Requested platform %q does not match result platform %q", asked, have[0])}, nil
	case len(res.Refs) == 0 && len(want) > 1:
		return []string{"Multiple platforms requested but result is not multi-platform"}, nil
	}
	slices.Sort(want)
	slices.Sort(have)
	return []string{fmt.Sprintf("Requested platforms %s do not match result platforms %s", strings.Join(want, ","), strings.Join(have, ","))}, nil
}
