package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"berth/base/checkup"
	"berth/volume/local"
)

// CheckStore verifies the directories of all volumes against what the engine knows. What is in memory is written again. Content is not
// looked at: it is the containers'.
func (v *Volumes) CheckStore(ctx context.Context, repair bool) checkup.Room {
	room := checkup.Room{Name: "volumes"}
	entries, err := os.ReadDir(v.cfg.Root)
	if err != nil {
		room.Found(checkup.Damage{Subject: "volumes", What: err.Error()}, nil)
		return room
	}
	names := map[string]bool{}
	for _, e := range entries {
		if CheckName(e.Name()) == nil && e.IsDir() {
			names[e.Name()] = true
		}
	}
	v.mu.Lock()
	for name := range v.records {
		names[name] = true
	}
	v.mu.Unlock()
	for _, name := range sorted(names) {
		if ctx.Err() != nil {
			return room
		}
		v.checkOne(ctx, &room, name, repair)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), gonePrefix) {
			name := e.Name()
			release, err := v.turns.Take(ctx, strings.TrimPrefix(name, gonePrefix))
			if err != nil {
				break
			}
			if _, err := os.Lstat(v.path(name)); err == nil { // not just being deleted
				d := checkup.Damage{Subject: filepath.Join("volumes", name), What: "it is left of a volume that was removed", Repair: "deleted"}
				room.Found(d, when(repair, func() error { v.sweep(name); return nil }))
			}
			release()
		}
	}
	v.mu.Lock()
	inTrash := len(v.bin)
	var lost []string
	for _, e := range entries {
		if id, ok := strings.CutPrefix(e.Name(), trashPrefix); ok {
			if _, known := v.bin[id]; !known {
				lost = append(lost, e.Name())
			}
		}
	}
	v.mu.Unlock()
	for _, name := range lost {
		if _, err := os.Lstat(v.path(name)); err == nil {
			room.Found(checkup.Damage{Subject: filepath.Join("volumes", name), What: "a volume in the trash that cannot be restored: its note cannot be read", Advice: "its content is in _data; copy what is needed and delete the directory"}, nil)
		}
	}
	room.Count("volumes", len(names))
	if inTrash > 0 {
		room.Count("in the trash", inTrash)
	}
	return room
}

func when(repair bool, do func() error) func() error {
	if !repair {
		return nil
	}
	return do
}

func (v *Volumes) checkOne(ctx context.Context, room *checkup.Room, name string, repair bool) {
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return
	}
	defer release()
	rec, known := v.record(name)
	onDisk, found, err := readRecord(v.path(name))
	path := filepath.Join("volumes", name, recordFile)
	switch {
	case !known && err == nil:
		return // no volume, or removed meanwhile
	case !known:
		room.Found(checkup.Damage{Subject: path, What: "the record cannot be read, and the engine does not know this volume: " + err.Error(),
			Advice: "put the file back from a backup, or delete it: a volume without a record is taken over with its content at the next start, without labels and options"}, nil)
		return
	case err == nil && !found:
		if foreign, ok, _ := foreignRecord(v.path(name)); ok && same(foreign, *rec) {
			break // dockerd's, which has none
		}
		err = errors.New("the record is missing")
	case err == nil && !same(onDisk, *rec):
		err = errors.New("the record is another one than the engine works by")
	}
	if err != nil {
		room.Found(checkup.Damage{Subject: path, What: err.Error(), Repair: "written again from the engine's memory"}, when(repair, func() error {
			if err := os.MkdirAll(v.path(name), 0o701); err != nil {
				return err
			}
			return writeRecord(v.path(name), rec)
		}))
	}
	if rec.Driver != localDriver {
		return
	}
	if _, err := os.Lstat(v.path(name, local.Data)); errors.Is(err, fs.ErrNotExist) {
		room.Found(checkup.Damage{Subject: filepath.Join("volumes", name, local.Data), What: "the directory with the volume's content is missing",
			Advice: "put it back from a backup, or remove the volume"}, nil)
	}
}

func same(a, b Volume) bool {
	a.Created, b.Created = a.Created.UTC().Round(0), b.Created.UTC().Round(0)
	a.Name, b.Name = "", "" // of its directory
	for _, m := range []*map[string]string{&a.Labels, &b.Labels, &a.Options, &b.Options} {
		if len(*m) == 0 {
			*m = nil
		}
	}
	return reflect.DeepEqual(a, b)
}
