package build

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"

	"berth/base/fault"
	"berth/build/history"
	"berth/build/progress"
)

// Status follows a build from its beginning, whenever it is asked, until it is over: send is called with
// what happened since. A build that is not here yet is waited for, some seconds; one that is over is read from its record.
func (b *Builder) Status(ctx context.Context, id string, send func(*client.SolveStatus) error) error {
	r, _ := b.find(id)
	if r == nil {
		if rec, err := b.history.Get(id); err == nil && !rec.Completed.IsZero() {
			return b.replay(rec, send)
		}
		var err error
		if r, err = b.await(ctx, id); err != nil {
			return err
		}
	}
	return r.hub.Follow(ctx, func(batch progress.Batch) error { return send(statusOf(batch)) })
}

// statusOf gives events in the type of BuildKit's client.
func statusOf(batch progress.Batch) *client.SolveStatus {
	s := &client.SolveStatus{}
	for _, v := range batch.Vertices {
		s.Vertexes = append(s.Vertexes, &client.Vertex{
			Digest: v.Digest, Inputs: v.Inputs, Name: v.Name, Started: v.Started, Completed: v.Completed, Cached: v.Cached,
			Error: v.Error, ProgressGroup: v.Group,
		})
	}
	for _, v := range batch.Statuses {
		s.Statuses = append(s.Statuses, &client.VertexStatus{
			ID: v.ID, Vertex: v.Vertex, Name: v.Name, Total: v.Total, Current: v.Current, Timestamp: v.Timestamp,
			Started: v.Started, Completed: v.Completed,
		})
	}
	for _, v := range batch.Logs {
		s.Logs = append(s.Logs, &client.VertexLog{Vertex: v.Vertex, Stream: v.Stream, Data: v.Data, Timestamp: v.Timestamp})
	}
	for _, v := range batch.Warnings {
		s.Warnings = append(s.Warnings, &client.VertexWarning{
			Vertex: v.Vertex, Level: v.Level, Short: v.Short, Detail: v.Detail, URL: v.URL, SourceInfo: v.Info, Range: v.Range,
		})
	}
	return s
}

// The log of a record is what Status would have sent: messages of BuildKit's Control service, each behind its length in
// four bytes, little end first.
const logMediaType = "application/vnd.buildkit.status.v0"

// writeLog gives the log of a build.
func writeLog(s *client.SolveStatus) ([]byte, error) {
	var log []byte
	for _, m := range s.Marshal() {
		data, err := m.MarshalVT()
		if err != nil {
			return nil, err
		}
		log = binary.LittleEndian.AppendUint32(log, uint32(len(data)))
		log = append(log, data...)
	}
	return log, nil
}

// maxLogMessage bounds a message of a log that is read back.
const maxLogMessage = 64 << 20

// replay sends what a record's log holds.
func (b *Builder) replay(rec history.Record, send func(*client.SolveStatus) error) error {
	if rec.Log == nil {
		return nil
	}
	f, err := b.history.OpenBlob(rec.Log.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	var size [4]byte
	for {
		if _, err := io.ReadFull(r, size[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fault.In(err, "read the log of build %s", rec.ID)
		}
		n := binary.LittleEndian.Uint32(size[:])
		if n > maxLogMessage {
			return fault.New(fault.Internal, "the log of build %s is damaged", rec.ID)
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(r, data); err != nil {
			return fault.In(err, "read the log of build %s", rec.ID)
		}
		m := &controlapi.StatusResponse{}
		if err := m.UnmarshalVT(data); err != nil {
			return fault.In(err, "read the log of build %s", rec.ID)
		}
		if err := send(client.NewSolveStatus(m)); err != nil {
			return err
		}
	}
}
