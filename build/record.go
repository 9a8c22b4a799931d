package build

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"berth/build/graph"
	"berth/build/history"
	"berth/build/progress"
)

// errorMediaType is that of an error with all its details, spelled as BuildKit spells it.
const errorMediaType = "application/vnd.googeapis.google.rpc.status+proto"

// record announces the build to who follows the history, and gives the function that completes its record, where records are made. What goes
// wrong with the record is logged: the build is what it is.
func (j *job) record(ctx context.Context) (finish func(error)) {
	if j.req.Internal || j.b.cfg.MaxRecords == NoRecords {
		return func(error) {}
	}
	rec := history.Record{ID: j.req.ID, Frontend: j.req.Frontend, FrontendAttrs: map[string]string{}, Created: j.started}
	for k, v := range j.req.FrontendAttrs {
		rec.FrontendAttrs[k] = recordable(k, v)
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

// recordable gives an attribute of a frontend as a record may hold it: a context may be a URL with a password in it, and clients write all
// that they say of a cache into cache-imports, the keys of its bucket too.
func recordable(name, value string) string {
	if name != "cache-imports" {
		return graph.Redact(value)
	}
	var list []struct {
		Type  string
		Attrs map[string]string `json:",omitempty"`
	}
	if json.Unmarshal([]byte(value), &list) != nil {
		return masked
	}
	for _, e := range list {
		for k, v := range e.Attrs {
			e.Attrs[k] = graph.Redact(v)
			if !slices.Contains(openCacheAttrs, k) {
				e.Attrs[k] = masked
			}
		}
	}
	text, err := json.Marshal(list)
	if err != nil {
		return masked
	}
	return string(text)
}

// masked stands where something is not told.
const masked = "xxxxx"

// openCacheAttrs are what a record tells of caches that were imported: where they lie, and what of them was wanted. All else may be a secret.
var openCacheAttrs = []string{
	"ref", "digest", "src", "tag", "bucket", "region", "name", "prefix", "manifests_prefix", "blobs_prefix", "endpoint_url", "use_path_style", "scope",
	"mode", "mounts", "mounts-max", "timeout", "oci-mediatypes", "image-manifest", "registry.insecure",
}

// complete fills in what a build left.
func (j *job) complete(ctx context.Context, rec *history.Record, err error) {
	log := j.b.log.With("id", rec.ID)
	batch := j.run.hub.Snapshot()
	countSteps(rec, batch)
	keep := func(what, mediaType string, data []byte, err error) *history.Blob {
		var blob history.Blob
		if err == nil {
			blob, err = j.b.history.PutBlob(j.req.ID, mediaType, data)
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
		d, ok := j.b.keepDocument(j.req.ID, *done.Descriptor)
		if !ok {
			continue
		}
		if rec.Result == nil {
			rec.Result = &history.Result{Documents: map[int64]history.Blob{}}
		}
		rec.Result.Documents[int64(i)] = d
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
