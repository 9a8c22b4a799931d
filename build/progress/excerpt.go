package progress

import (
	"bytes"

	"github.com/moby/buildkit/solver/pb"
)

// around is how many lines before and after its place an excerpt has. Clients print up to four.
const around = 5

// longest is the file, in bytes, that an excerpt is made of.
const longest = 4 << 20

// index has the places where the lines of a file begin. Most warnings of a build are about one file, which is looked through once.
type index struct {
	data   []byte
	starts []int
}

func (x *index) of(data []byte) []int {
	if x.starts == nil || len(data) != len(x.data) || len(data) > 0 && &data[0] != &x.data[0] {
		x.data, x.starts = data, []int{0}
		for i, b := range data {
			if b == '\n' {
				x.starts = append(x.starts, i+1)
			}
		}
	}
	return x.starts
}

// excerpt gives a file of which only the lines of the ranges, and some around them, are left. Those before are empty, so that each line
// keeps its number; those after are gone. Without a place in the file nothing of it is left.
func (x *index) excerpt(info *pb.SourceInfo, ranges []*pb.Range) *pb.SourceInfo {
	short := &pb.SourceInfo{Filename: info.Filename, Language: info.Language, Definition: info.Definition}
	first, last := -1, -1 // counted from 0
	for _, r := range ranges {
		start, end := int(r.GetStart().GetLine())-1, int(max(r.GetStart().GetLine(), r.GetEnd().GetLine()))-1
		if first < 0 || start < first {
			first = start
		}
		last = max(last, end)
	}
	if first < 0 || len(info.Data) > longest {
		return short
	}
	starts := x.of(info.Data)
	begin := min(max(0, first-around), len(starts)-1)
	end := len(info.Data)
	if last+around+1 < len(starts) {
		end = starts[last+around+1]
	}
	short.Data = append(bytes.Repeat([]byte("\n"), begin), info.Data[starts[begin]:end]...)
	return short
}
