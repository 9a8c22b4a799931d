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
	short := &pb.SourceInfo{Filename: info.Filename, Language: info.Language, Definition: info.Definition}
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
	// Without a copy of what is left out: there may be a thousand excerpts.
	begin, end, line := 0, 0, 0
	for ; end < len(info.Data) && line <= last+around; line++ {
		if line <= first-around {
			begin = end
		}
		n := bytes.IndexByte(info.Data[end:], '\n')
		if n < 0 {
			n = len(info.Data) - end - 1
		}
		end += n + 1
	}
	empty := bytes.Repeat([]byte("\n"), max(0, min(first-around, line-1)))
	short.Data = append(empty, info.Data[begin:end]...)
	return short
}
