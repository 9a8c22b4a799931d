package frontend

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/build/graph"
)

// anyImage resolves every image to an empty one with triggers.
type anyImage struct{}

func (anyImage) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	config, err := json.Marshal(map[string]any{
		"os": "linux", "architecture": "amd64", "config": map[string]any{"Env": []string{"PATH=/bin", "=x", ""}, "OnBuild": []string{"RUN a", "COPY . /"}},
	})
	return ref, digest.FromBytes(config), config, err
}

// The translator of BuildKit's library runs on goroutines of the library's, where a panic is the end of the engine: whatever a Dockerfile
// says, it must not panic, and what it makes must be a graph.
func FuzzDockerfile(f *testing.F) {
	for _, s := range []string{
		"FROM scratch\nCOPY a b\n", "ARG A=1\nFROM x:$A AS b\nRUN --mount=type=cache,target=/c,id=x <<EOF cat\nhi\nEOF\n",
		"FROM x\nRUN --mount=type=secret,id=a,env=B --network=none --security=insecure [\"a\",\"b\"]\nENV A=${B:-c} B=${A#x}\n",
		"FROM --platform=$BUILDPLATFORM x AS a\nONBUILD ADD --chmod=u+x,g=r https://x/y /z\nFROM a\nADD --checksum=sha256:00 git@x:y.git#z /\n",
		"FROM x\nHEALTHCHECK --interval=1s CMD a\nEXPOSE 1-2/tcp\nSTOPSIGNAL 9\nSHELL [\"a\"]\nVOLUME /a\nUSER 1:2\nWORKDIR a\nLABEL a=b\n",
		"# escape=`\nFROM x\nCOPY --link --parents --exclude=*.a --from=y /a/./b /c\nCOPY <<A <<\"B\" /\n$x\nA\n$y\nB\n",
		"# check=skip=all;error=true\nFROM x AS a\nFROM a AS a\nFROM --platform=a/b/c/d x\n", "FROM x\nRUN --mount=from=0,source=/../.. --device=a=b a\n",
		"ARG A=b\nFROM x AS a\nENV A=${A//b/cc$A} B=${A%c*}\nONBUILD ENV A=$A$B\nFROM a\nENV A=$A${A:-$B}\nRUN <<-'E' sh\n\tx\n\tE\n",
	} {
		f.Add([]byte(s))
	}
	caps := pb.Caps.CapSet(pb.Caps.All())
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 16<<10 || CheckDockerfile(data) != nil {
			return
		}
		around := surroundingsOf(map[string]string{"build-arg:A": "b"})
		around.meet(imageConfig{Env: []string{"PATH=/bin", "=x", ""}, OnBuild: []string{"RUN a", "COPY . /"}})
		if checkGrowth(data, around) != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		main := llb.Local("context")
		res, err := dockerfile2llb.Dockerfile2LLB(ctx, data, dockerfile2llb.ConvertOpt{
			Config:      dockerui.Config{BuildArgs: map[string]string{"A": "b"}, Labels: map[string]string{"l": "m"}, Hostname: "h", BuildPlatforms: []ocispec.Platform{{OS: "linux", Architecture: "amd64"}}},
			MainContext: &main, MetaResolver: anyImage{}, LLBCaps: &caps, SourceMap: llb.NewSourceMap(nil, "Dockerfile", "Dockerfile", data),
			Warn: func(string, string, string, string, []parser.Range) {},
		})
		if err != nil {
			return
		}
		def, err := res.State.Marshal(ctx)
		if err != nil {
			return
		}
		if _, err := graph.Parse(def.ToPB()); err != nil {
			t.Errorf("what the library made is no graph: %v", err)
		}
	})
}
