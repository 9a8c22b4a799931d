package progress

import (
	"bytes"

	"github.com/moby/buildkit/solver/pb"
)

// around is how many lines before and after its place an excerpt has. Clients print up to four.
const around = 5

// excerpt gives a file of which only the lines of the ranges, and some around them, are left. Those before are empty, so that each line
// keeps its number; those after are gone. Without a place in the file nothing of it is left.
func excerpt(info *pb.SourceInfo, ranges []*pb.Range) *pb.SourceInfo {
	short := info.CloneVT()
	short.Data = nil
	first, last := -1, -1 // counted from 0
	for _, r := range ranges {
		start, end := int(r.GetStart().GetLine())-1, int(max(r.GetStart().GetLine(), r.GetEnd().GetLine()))-1
		if first < 0 || start < first {
			first = start
		}
		last = max(last, end)
	}
	if first < 0 {
		return short
	}
	lines := bytes.SplitAfterN(info.Data, []byte("\n"), last+around+2)
	lines = lines[:min(len(lines), last+around+1)]
	for i, line := range lines {
		if i >= first-around {
			short.Data = append(short.Data, line...)
		} else {
			short.Data = append(short.Data, '\n')
		}
	}
	return short
}
