package progress

import (
	"time"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
)

// Sink takes the events of a build. Implementations are safe for concurrent use and never block for long.
type Sink interface {
	Vertex(Vertex)
	Status(Status)
	Log(Log)
	Warning(Warning)
}

// Vertex is the state of one step. A later event of the same digest replaces an earlier one; a step that runs twice
// (an image is resolved, and later unpacked) starts and completes twice.
type Vertex struct {
	Digest    digest.Digest
	Inputs    []digest.Digest
	Name      string
	Started   *time.Time
	Completed *time.Time
	Cached    bool
	Error     string // not "": it failed
	Group     *pb.ProgressGroup
}

// Status is how far one part of a step is, such as a layer being fetched.
type Status struct {
	Vertex    digest.Digest
	ID        string // names the part within its vertex
	Name      string // the action: "extracting", "transferring context"; "" is like ID
	Current   int64  // bytes
	Total     int64  // bytes; 0 is unknown
	Timestamp time.Time
	Started   *time.Time
	Completed *time.Time
}

// Part runs f as a part of a vertex that is called id, and tells when it began and ended; tell may be nil.
func Part(tell func(Status), id string, f func() error) error {
	if tell == nil {
		return f()
	}
	begun := time.Now()
	tell(Status{ID: id, Timestamp: begun, Started: &begun})
	err := f()
	end := time.Now()
	tell(Status{ID: id, Timestamp: end, Started: &begun, Completed: &end})
	return err
}

// Log is what a step printed.
type Log struct {
	Vertex    digest.Digest
	Stream    int // 1 stdout, 2 stderr
	Data      []byte
	Timestamp time.Time
}

// Warning is something the author of the build should know.
type Warning struct {
	Vertex digest.Digest
	Level  int
	Short  []byte
	Detail [][]byte
	URL    string
	Info   *pb.SourceInfo
	Range  []*pb.Range
}

// size is about the bytes that it takes.
func (w *Warning) size() int {
	n := len(w.Short) + len(w.URL) + w.Info.SizeVT() + 64*len(w.Range)
	for _, d := range w.Detail {
		n += len(d) + 24
	}
	return n
}

// Discard is a sink that drops everything.
var Discard Sink = discard{}

type discard struct{}

func (discard) Vertex(Vertex)   {}
func (discard) Status(Status)   {}
func (discard) Log(Log)         {}
func (discard) Warning(Warning) {}
