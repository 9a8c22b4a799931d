package build

import (
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// TestNestedSources: the blob that a git source is fetched from can be looked at and replaced like a source of its own.
func TestNestedSources(t *testing.T) {
	one, two := "docker-image+blob://a/b@"+string(digest.FromString("1")), "docker-image+blob://a/b@"+string(digest.FromString("2"))
	op := &pb.SourceOp{Identifier: "git://x/r", Attrs: map[string]string{pb.AttrGitBundle: one, pb.AttrGitChecksum: strings.Repeat("a", 40)}}
	inner, with, err := nested(op)
	if err != nil || inner.Identifier != one {
		t.Fatalf("%v %v", inner, err)
	}
	if got := with(&pb.SourceOp{Identifier: two}); got.Attrs[pb.AttrGitBundle] != two || got.Identifier != op.Identifier || op.Attrs[pb.AttrGitBundle] != one {
		t.Errorf("%v", got)
	}
	if inner, _, err := nested(&pb.SourceOp{Identifier: "git://x/r"}); inner != nil || err != nil {
		t.Errorf("%v %v", inner, err)
	}
	if _, _, err := nested(&pb.SourceOp{Identifier: "git://x/r", Attrs: map[string]string{pb.AttrGitBundle: "ftp://x"}}); err == nil {
		t.Error("a blob of no known kind was taken")
	}
}
