package build

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"berth/base/checkup"
)

// CheckStore verifies what builds keep: the index of the cache, its records and their layers. A builder that has never built has nothing.
func (b *Builder) CheckStore(ctx context.Context, repair bool) checkup.Room {
	if _, err := os.Stat(b.dir("cache.db")); errors.Is(err, fs.ErrNotExist) {
		return checkup.Room{Name: "builds"}
	}
	p, err := b.parts()
	if err != nil {
		room := checkup.Room{Name: "builds"}
		room.Found(checkup.Damage{Subject: "build", What: "cannot be opened: " + err.Error()}, nil)
		return room
	}
	return p.cache.Check(ctx, repair, b.cfg.Images.Layers().Has)
}
