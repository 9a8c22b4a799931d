package buildkit

import (
	"context"

	controlapi "github.com/moby/buildkit/api/services/control"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"berth/build/history"
)

// ListenBuildHistory tells of builds: those under way, those that are recorded, and what comes.
func (c *control) ListenBuildHistory(req *controlapi.BuildHistoryRequest, stream controlapi.Control_ListenBuildHistoryServer) error {
	if err := sendNow(stream); err != nil {
		return err
	}
	return c.builder.History().Listen(stream.Context(), history.ListenOptions{
		Active: req.ActiveOnly, ID: req.Ref, Once: req.EarlyExit, Filters: req.Filter, Limit: int(req.Limit),
	}, func(e history.Event) error {
		return stream.Send(&controlapi.BuildHistoryEvent{Type: eventType(e.Type), Record: recordOf(&e.Record)})
	})
}

// UpdateBuildHistory deletes, pins or finalizes a record. A record is final when its build is.
func (c *control) UpdateBuildHistory(ctx context.Context, req *controlapi.UpdateBuildHistoryRequest) (*controlapi.UpdateBuildHistoryResponse, error) {
	h := c.builder.History()
	var err error
	switch {
	case req.Delete:
		err = h.Delete(req.Ref)
	case req.Finalize:
		_, err = h.Get(req.Ref)
	default:
		err = h.Update(req.Ref, func(r *history.Record) { r.Pinned = req.Pinned })
	}
	return &controlapi.UpdateBuildHistoryResponse{}, err
}

func eventType(t history.EventType) controlapi.BuildHistoryEventType {
	switch t {
	case history.Started:
		return controlapi.BuildHistoryEventType_STARTED
	case history.Deleted:
		return controlapi.BuildHistoryEventType_DELETED
	}
	return controlapi.BuildHistoryEventType_COMPLETE
}

func recordOf(r *history.Record) *controlapi.BuildHistoryRecord {
	out := &controlapi.BuildHistoryRecord{
		Ref: r.ID, Frontend: r.Frontend, FrontendAttrs: r.FrontendAttrs, ExporterResponse: r.Response, Pinned: r.Pinned,
		Generation: r.Generation, Logs: descriptorOf(r.Log), Trace: descriptorOf(r.Trace), ExternalError: descriptorOf(r.ErrorBlob),
		NumCachedSteps: int32(r.CachedSteps), NumTotalSteps: int32(r.Steps), NumCompletedSteps: int32(r.CompletedSteps),
		NumWarnings: int32(r.Warnings), Result: resultOf(r.Result),
	}
	if !r.Created.IsZero() {
		out.CreatedAt = timestamppb.New(r.Created)
	}
	if !r.Completed.IsZero() {
		out.CompletedAt = timestamppb.New(r.Completed)
	}
	for _, e := range r.Exporters {
		out.Exporters = append(out.Exporters, &controlapi.Exporter{Type: e.Type, Attrs: e.Attrs})
	}
	if r.Error != nil {
		out.Error = &spb.Status{}
		if proto.Unmarshal(r.Error, out.Error) != nil {
			out.Error = &spb.Status{Code: 2, Message: r.ErrorMessage} // 2: unknown
		}
	}
	for k, res := range r.Results {
		if out.Results == nil {
			out.Results = map[string]*controlapi.BuildResultInfo{}
		}
		out.Results[k] = resultOf(&res)
	}
	return out
}

// resultOf translates what was made. The document of the first exporter stands in the field for old clients too.
func resultOf(r *history.Result) *controlapi.BuildResultInfo {
	if r == nil {
		return nil
	}
	out := &controlapi.BuildResultInfo{}
	first := int64(-1)
	for i, d := range r.Documents {
		if out.Results == nil {
			out.Results = map[int64]*controlapi.Descriptor{}
		}
		out.Results[i] = descriptorOf(&d)
		if first < 0 || i < first {
			first, out.ResultDeprecated = i, out.Results[i]
		}
	}
	for _, a := range r.Attestations {
		out.Attestations = append(out.Attestations, descriptorOf(&a))
	}
	return out
}

func descriptorOf(b *history.Blob) *controlapi.Descriptor {
	if b == nil {
		return nil
	}
	return &controlapi.Descriptor{MediaType: b.MediaType, Digest: b.Digest.String(), Size: b.Size, Annotations: b.Annotations}
}
