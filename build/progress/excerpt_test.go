package progress

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
)

func place(start, end int32) *pb.Range {
	return &pb.Range{Start: &pb.Position{Line: start}, End: &pb.Position{Line: end}}
}

// What a client prints of an excerpt is what it prints of the whole file.
func TestExcerptsPrintAlike(t *testing.T) {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "LABEL l%d=%d\n", i, i)
	}
	whole := &pb.SourceInfo{Filename: "Dockerfile", Language: "Dockerfile", Data: []byte(b.String())}
	for _, ranges := range [][]*pb.Range{
		{place(1, 1)}, {place(2, 2)}, {place(50, 50)}, {place(50, 60)}, {place(99, 100)}, {place(100, 100)}, {place(101, 101)},
		{place(60, 61), place(40, 42)}, {place(50, 0)}, {place(5000, 5001)}, nil,
	} {
		var want, got bytes.Buffer
		if err := (&errdefs.Source{Info: whole, Ranges: ranges}).Print(&want); err != nil {
			t.Fatal(err)
		}
		short := new(index).excerpt(whole, ranges)
		if err := (&errdefs.Source{Info: short, Ranges: ranges}).Print(&got); err != nil {
			t.Fatal(err)
		}
		if got.String() != want.String() {
			t.Errorf("%v: printed\n%s\nand of the whole file\n%s", ranges, &got, &want)
		}
		if short.Filename != whole.Filename || short.Language != whole.Language {
			t.Errorf("%v: the excerpt is of %s (%s)", ranges, short.Filename, short.Language)
		}
	}
}

// Places are told by frontends, which may be anybody's.
func TestExcerptsOfNowhere(t *testing.T) {
	info := &pb.SourceInfo{Data: []byte("FROM scratch\nLABEL a=b")}
	for _, ranges := range [][]*pb.Range{
		{place(0, 0)}, {place(-7, -9)}, {place(1, 1), place(-7, 2)}, {place(-7, 2), place(2, 2)}, {place(math.MinInt32, math.MaxInt32)},
		{place(math.MaxInt32, math.MaxInt32)}, {{}}, {nil},
	} {
		if got := new(index).excerpt(info, ranges); len(got.Data) > len(info.Data) {
			t.Errorf("%v: an excerpt of %d bytes of %d", ranges, len(got.Data), len(info.Data))
		}
	}
}

// A Dockerfile whose every line is found fault with does not go over the wire as often as it has lines.
func TestSourcesOfWarningsAreBounded(t *testing.T) {
	data := bytes.Repeat([]byte("CMD [\"a program with some arguments\"]\n"), 900)
	h := NewHub()
	whole := 0
	for i := range 900 {
		h.Warning(Warning{Info: &pb.SourceInfo{Data: data}, Range: []*pb.Range{place(int32(i+1), int32(i+1))}})
	}
	sum := 0
	for i, w := range h.Snapshot().Warnings {
		sum += len(w.Info.Data)
		if len(w.Info.Data) == len(data) {
			whole++
		}
		if !bytes.Equal(bytes.Split(w.Info.Data, []byte("\n"))[i], data[:bytes.IndexByte(data, '\n')]) {
			t.Fatalf("warning %d does not have its line", i)
		}
	}
	if whole == 0 || sum > 1<<20 {
		t.Errorf("900 warnings have the file whole %d times, and %d bytes of it in all", whole, sum)
	}
}
