package build

import (
	"context"
	"time"

	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"berth/build/attest"
	"berth/build/history"
	"berth/build/progress"
)

// errorMediaType is that of an error with all its details, spelled as BuildKit spells it.
const errorMediaType = "application/vnd.googeapis.google.rpc.status+proto"

// record announces the build to who follows the history, and gives the function that completes its record. What goes
// wrong with the record is logged: the build is what it is.
func (j *job) record(ctx context.Context) (finish func(error)) {
	if j.req.Internal {
		return func(error) {}
	}
	rec := history.Record{ID: j.req.ID, Frontend: j.req.Frontend, FrontendAttrs: map[string]string{}, Created: j.started}
	for k, v := range j.req.FrontendAttrs {
		rec.FrontendAttrs[k] = attest.Redact(v) // a context may be a URL with a password in it
	}
	for _, e := range j.req.Exporters {
		rec.Exporters = append(rec.Exporters, history.Exporter{Type: e.Type, Attrs: e.Attrs})
	}
	j.b.history.Begin(rec)
	return func(err error) {
		rec.Completed = time.Now()
		j.complete(ctx, &rec, err)
		if err := j.b.history.Complete(rec); err != nil {
			j.b.log.Warn("a build is not recorded", "id", rec.ID, "err", err)
		}
	}
}

// complete fills in what a build left.
func (j *job) complete(ctx context.Context, rec *history.Record, err error) {
	log := j.b.log.With("id", rec.ID)
	batch := j.run.hub.Snapshot()
	countSteps(rec, batch)
	keep := func(what, mediaType string, data []byte, err error) *history.Blob {
		var blob history.Blob
		if err == nil {
			blob, err = j.b.history.PutBlob(mediaType, data)
		}
		if err != nil {
			log.Warn("a part of a build's record is not kept", "part", what, "err", err)
			return nil
		}
		return &blob
	}
	data, lerr := writeLog(statusOf(batch))
	rec.Log = keep("log", logMediaType, data, lerr)
	if j.result != nil && len(j.result.Metadata) > 0 {
		rec.Response = map[string]string{}
		for k, v := range j.result.Metadata {
			rec.Response[k] = string(v)
		}
	}
	for i, done := range j.made {
		if done == nil || done.Descriptor == nil {
			continue
		}
		if rec.Result == nil {
			rec.Result = &history.Result{Documents: map[int64]history.Blob{}}
		}
		d := done.Descriptor
		rec.Result.Documents[int64(i)] = history.Blob{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations}
	}
	defer func() {
		data, err := traceOf(rec, batch)
		rec.Trace = keep("trace", traceMediaType, data, err)
	}()
	if err == nil {
		if j.planned == "" {
			if err := j.recordProvenance(rec); err != nil {
				log.Warn("a build's provenance is not kept", "err", err)
			}
		}
		return
	}
	st, ok := grpcerrors.AsGRPCStatus(grpcerrors.ToGRPC(ctx, err))
	if !ok {
		st = status.New(codes.Unknown, err.Error())
	}
	p := st.Proto()
	rec.ErrorMessage = p.Message
	data, merr := proto.Marshal(p)
	rec.ErrorBlob = keep("error", errorMediaType, data, merr)
	p.Details = nil
	rec.Error, _ = proto.Marshal(p)
}

// countSteps counts steps as BuildKit does: each vertex once, by its newest state.
func countSteps(rec *history.Record, batch progress.Batch) {
	last := map[string]progress.Vertex{}
	for _, v := range batch.Vertices {
		last[string(v.Digest)] = v
	}
	rec.Steps = len(last)
	for _, v := range last {
		if v.Cached {
			rec.CachedSteps++
		}
		if v.Completed != nil {
			rec.CompletedSteps++
		}
	}
	rec.Warnings = len(batch.Warnings)
}
