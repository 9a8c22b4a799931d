package build

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"

	"berth/build/frontend"
)

func TestPlatformWarnings(t *testing.T) {
	result := func(names ...string) *gateway.Result {
		res := &gateway.Result{}
		ps := exptypes.Platforms{}
		for _, n := range names {
			p := platforms.MustParse(n)
			ps.Platforms = append(ps.Platforms, exptypes.Platform{ID: n, Platform: p})
			if len(names) > 1 {
				res.AddRef(n, &frontend.Reference{})
			} else {
				res.SetRef(&frontend.Reference{})
			}
		}
		data, err := json.Marshal(ps)
		if err != nil {
			t.Fatal(err)
		}
		res.AddMeta(exptypes.ExporterPlatformsKey, data)
		return res
	}
	own := platforms.Format(platforms.DefaultSpec())
	for _, c := range []struct {
		asked string
		res   *gateway.Result
		want  []string
	}{
		{"", result(own), nil},
		{"linux/arm64", result("linux/arm64"), nil},
		{"linux/arm64/v8", result("linux/arm64"), nil},
		{"linux/amd64,linux/arm64", result("linux/arm64", "linux/amd64"), nil},
		{"linux/s390x", result("linux/arm64"), []string{`Requested platform "linux/s390x" does not match result platform "linux/arm64"`}},
		{"linux/amd64,linux/arm64", result("linux/arm64"), []string{"Multiple platforms requested but result is not multi-platform"}},
		{"linux/amd64,linux/arm64", result("linux/arm64", "linux/s390x"), []string{"Requested platforms linux/amd64,linux/arm64 do not match result platforms linux/arm64,linux/s390x"}},
		{"linux/amd64,linux/amd64", result("linux/amd64"), []string{`Duplicate platform result requested "linux/amd64"`}},
		{"linux/amd64", &gateway.Result{Metadata: map[string][]byte{"result.json": nil}}, nil},
	} {
		got, err := platformWarnings(c.asked, c.res)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v; want %q", c.asked, got, err, c.want)
		}
	}
	lost := &gateway.Result{}
	lost.AddRef("a", &frontend.Reference{})
	if _, err := platformWarnings("", lost); err == nil {
		t.Error("references without platforms passed")
	}
}

func TestSourceDateEpoch(t *testing.T) {
	for v, want := range map[string]bool{"0": true, "1700000000": true, "": true, "context": false, "12 days": false} {
		if _, ok := sourceDateEpoch(map[string]string{"build-arg:SOURCE_DATE_EPOCH": v}); ok != want {
			t.Errorf("%q: %v", v, ok)
		}
	}
	if _, ok := sourceDateEpoch(nil); ok {
		t.Error("no argument is one")
	}
}
