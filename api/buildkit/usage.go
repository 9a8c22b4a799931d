package buildkit

import (
	"context"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/protobuf/types/known/timestamppb"

	"berth/build/cache"
)

// DiskUsage lists what builds keep.
func (c *control) DiskUsage(ctx context.Context, req *controlapi.DiskUsageRequest) (*controlapi.DiskUsageResponse, error) {
	list, err := c.builder.DiskUsage(ctx, req.Filter)
	if err != nil {
		return nil, err
	}
	resp := &controlapi.DiskUsageResponse{}
	for _, u := range list {
		if req.AgeLimit > 0 && time.Since(u.LastUsed) < time.Duration(req.AgeLimit) {
			continue
		}
		resp.Record = append(resp.Record, usageRecord(u))
	}
	return resp, nil
}

// Prune removes what the request says, and tells each thing that is gone.
func (c *control) Prune(req *controlapi.PruneRequest, stream controlapi.Control_PruneServer) error {
	var failed error // the client went away: what was begun is finished
	err := c.builder.Prune(stream.Context(), cache.PruneOptions{
		All: req.All, Filters: req.Filter, KeepDuration: time.Duration(req.KeepDuration),
		ReservedSpace: req.ReservedSpace, MaxUsedSpace: req.MaxUsedSpace, MinFreeSpace: req.MinFreeSpace,
	}, func(u cache.Usage) {
		if failed == nil {
			failed = stream.Send(usageRecord(u))
		}
	})
	if err != nil {
		return err
	}
	return failed
}

func usageRecord(u cache.Usage) *controlapi.UsageRecord {
	r := &controlapi.UsageRecord{
		ID: u.ID, Mutable: u.Mutable, InUse: u.InUse, Size: u.Size, UsageCount: int64(u.Uses), Description: u.Description,
		RecordType: u.Type, Shared: u.Shared, Parents: u.Parents, CreatedAt: timestamppb.New(u.Created),
	}
	if !u.LastUsed.IsZero() {
		r.LastUsedAt = timestamppb.New(u.LastUsed)
	}
	return r
}
