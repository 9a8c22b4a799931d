package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/base/checkup"
	"berth/base/id"
)

// CheckStore verifies the files of all networks against what the engine knows, which is written again where they differ.
func (n *Networks) CheckStore(ctx context.Context, repair bool) checkup.Room {
	room := checkup.Room{Name: "networks"}
	end, err := n.turn(ctx)
	if err != nil {
		return room
	}
	defer end()
	files, err := os.ReadDir(n.cfg.Root)
	if err != nil {
		room.Found(checkup.Damage{Subject: "network", What: err.Error()}, nil)
		return room
	}
	n.mu.RLock()
	known := make([]*entry, 0, len(n.nets))
	for _, x := range n.nets {
		known = append(known, x)
	}
	n.mu.RUnlock()
	slices.SortFunc(known, func(a, b *entry) int { return strings.Compare(a.ID, b.ID) })
	for _, x := range known {
		b, err := os.ReadFile(n.networkPath(x.ID))
		want, werr := n.encode(x)
		if err == nil && werr == nil && sameJSON(b, want) {
			continue
		}
		d := checkup.Damage{Subject: filepath.Join("network", x.ID+".json"), What: "the file of network " + x.Name + " is another one than the engine works by", Repair: "written again from the engine's memory"}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			d.What = "the file of network " + x.Name + " is missing"
		case err != nil:
			d.What = "the file of network " + x.Name + " cannot be read: " + err.Error()
		}
		var fix func() error
		if repair {
			fix = func() error { return n.write(x) }
		}
		room.Found(d, fix)
	}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok || !id.Valid(name) || slices.ContainsFunc(known, func(x *entry) bool { return x.ID == name }) {
			continue
		}
		room.Found(checkup.Damage{Subject: filepath.Join("network", f.Name()), What: "the file cannot be read, and the engine does not know this network",
			Advice: "put it back from a backup and restart the engine, or delete it and create the network again"}, nil)
	}
	room.Count("networks", len(known))
	return room
}

// sameJSON compares what two texts mean.
func sameJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
