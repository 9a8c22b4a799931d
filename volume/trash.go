package volume

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/base/removal"
	"berth/kernel/tree"
	"berth/volume/content"
	"berth/volume/local"
)

// A volume in the trash is its directory under another name, ROOT/.trash-ID, with a note in it, trash.json. The note is written before
// the directory is renamed: a crash in between leaves the volume as it was, with a note that nobody reads.
const (
	trashPrefix  = ".trash-"
	trashFile    = "trash.json"
	trashVersion = 1
)

// trashed is ROOT/.trash-ID/trash.json.
type trashed struct {
	Version int       `json:"version"`
	Name    string    `json:"name"`
	With    string    `json:"with,omitempty"` // id of the container that it was removed with
	Removed time.Time `json:"removed"`
	Expires time.Time `json:"expires"`

	id    string
	size  int64 // bytes of its content, which does not change any more
	sized bool  // size was measured
}

// window is how long what is removed can be restored; 0: it is deleted at once.
func (v *Volumes) window() time.Duration {
	if v.cfg.Trash == nil {
		return 0
	}
	return v.cfg.Trash()
}

// trash moves a local volume into the trash, whose driver has let go of it.
func (v *Volumes) trash(name, with string, window time.Duration) error {
	now := time.Now().UTC()
	t := trashed{Version: trashVersion, Name: name, With: with, Removed: now, Expires: now.Add(window), id: id.New()[:16]}
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(v.path(name, trashFile), append(b, '\n'), 0o600); err != nil {
		return err
	}
	if err := failpoint.Hit("volume/before-trash"); err != nil {
		return err
	}
	if err := os.Rename(v.path(name), v.path(trashPrefix+t.id)); err != nil {
		return err
	}
	failpoint.Hit("volume/trashed")
	if err := atomicfile.SyncDir(v.cfg.Root); err != nil {
		return err
	}
	v.keep(name, nil)
	v.mu.Lock()
	v.bin[t.id] = t
	v.mu.Unlock()
	return nil
}

// readTrash notes one entry of the trash at the start.
func (v *Volumes) readTrash(entry string) {
	var t trashed
	b, err := os.ReadFile(v.path(entry, trashFile))
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err == nil && t.Version != trashVersion {
		err = fault.New(fault.Invalid, "format %d is not known", t.Version)
	}
	if err == nil {
		err = CheckName(t.Name)
	}
	if err != nil {
		v.log.Error("a volume in the trash cannot be restored and is left alone", "path", v.path(entry), "error", err)
		return
	}
	t.id = strings.TrimPrefix(entry, trashPrefix)
	v.bin[t.id] = t
}

// Trashed lists the volumes in the trash, the latest first. Each one's size is measured once, which may take a moment.
func (v *Volumes) Trashed() []removal.Trashed {
	list := []removal.Trashed{}
	v.mu.Lock()
	for _, t := range v.bin {
		list = append(list, t.describe())
	}
	v.mu.Unlock()
	for i := range list {
		list[i].Size = v.trashedSize(list[i].ID)
	}
	slices.SortFunc(list, func(a, b removal.Trashed) int { return cmp.Or(b.Removed.Compare(a.Removed), cmp.Compare(a.ID, b.ID)) })
	return list
}

func (t *trashed) describe() removal.Trashed {
	return removal.Trashed{ID: t.id, Kind: removal.Volume, Name: t.Name, Of: t.Name, With: t.With, Removed: t.Removed, Expires: t.Expires, Size: -1}
}

func (v *Volumes) trashedSize(id string) int64 {
	v.mu.Lock()
	t, there := v.bin[id]
	v.mu.Unlock()
	if there && t.sized {
		return t.size
	}
	size := v.measureTrashed(id)
	v.mu.Lock()
	defer v.mu.Unlock()
	if t, there := v.bin[id]; there {
		t.size, t.sized = size, true
		v.bin[id] = t
	}
	return size
}

func (v *Volumes) measureTrashed(id string) int64 {
	dir, err := tree.OpenDir(v.path(trashPrefix+id, local.Data))
	if err != nil {
		return -1
	}
	defer dir.Close()
	n, err := content.Size(context.Background(), dir)
	if err != nil {
		return -1
	}
	return n
}

func (v *Volumes) trashEntry(id string) (trashed, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t, ok := v.bin[id]
	if !ok {
		return t, fault.New(fault.NotFound, "no volume %s in the trash", id)
	}
	return t, nil
}

// RestoreTrashed gives a volume its name again, or another one if somebody has that now.
func (v *Volumes) RestoreTrashed(ctx context.Context, id string) (removal.Restored, error) {
	t, err := v.trashEntry(id)
	if err != nil {
		return removal.Restored{}, err
	}
	out := removal.Restored{Trashed: t.describe()}
	for try := range 100 {
		name := t.Name
		if try > 0 {
			name += "-restored"
		}
		if try > 1 {
			name += fmt.Sprintf("-%d", try)
		}
		done, err := v.restoreAs(ctx, t, name)
		if err != nil {
			return out, fault.In(err, "restore volume %s", t.Name)
		}
		if !done {
			continue
		}
		if try > 0 {
			out.Notes = append(out.Notes, "there is another volume "+t.Name+" now: restored as "+name)
		}
		out.Now = []string{name}
		v.cfg.Emit("restore", name, map[string]string{"driver": localDriver})
		return out, nil
	}
	return out, fault.New(fault.Conflict, "restore volume %s: its name is taken, and so are others like it", t.Name)
}

// restoreAs reports false where the name is taken.
func (v *Volumes) restoreAs(ctx context.Context, t trashed, name string) (bool, error) {
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return false, err
	}
	defer release()
	v.taking.Lock()
	defer v.taking.Unlock()
	if _, err := v.trashEntry(t.id); err != nil { // restored or deleted meanwhile
		return false, err
	}
	if _, taken := v.record(name); taken {
		return false, nil
	}
	if _, err := os.Lstat(v.path(name)); err == nil {
		return false, nil // a directory that is no volume
	}
	if err := failpoint.Hit("volume/before-restore"); err != nil {
		return false, err
	}
	if err := os.Rename(v.path(trashPrefix+t.id), v.path(name)); err != nil {
		return false, err
	}
	if err := atomicfile.SyncDir(v.cfg.Root); err != nil {
		return false, err
	}
	v.mu.Lock()
	delete(v.bin, t.id)
	v.mu.Unlock()
	vol, err := v.read(name)
	if err == nil && vol == nil {
		err = fault.New(fault.Internal, "its record is missing")
	}
	if err != nil {
		return false, err
	}
	v.keep(name, vol)
	if err := atomicfile.Remove(v.path(name, trashFile)); err != nil {
		v.log.Warn("a note of the trash stays with a volume", "volume", name, "error", err)
	}
	return true, nil
}

// DeleteTrashed deletes a volume that is in the trash, for good, and tells how many bytes it had.
func (v *Volumes) DeleteTrashed(_ context.Context, id string) (freed int64, err error) {
	if _, err := v.trashEntry(id); err != nil {
		return 0, err
	}
	freed = max(0, v.trashedSize(id))
	gone := gonePrefix + trashPrefix[1:] + id
	if err := v.takeOut(id, gone); err != nil {
		return 0, err
	}
	v.sweep(gone)
	return freed, nil
}

// takeOut gives an entry the name of something that is being deleted.
func (v *Volumes) takeOut(id, gone string) error {
	v.taking.Lock()
	defer v.taking.Unlock()
	if _, err := v.trashEntry(id); err != nil { // restored or deleted meanwhile
		return err
	}
	if err := failpoint.Hit("volume/before-empty"); err != nil {
		return err
	}
	err := os.Rename(v.path(trashPrefix+id), v.path(gone))
	if errors.Is(err, os.ErrNotExist) { // taken away by somebody else
		err = nil
	}
	if err == nil {
		err = atomicfile.SyncDir(v.cfg.Root)
	}
	if err != nil {
		return fault.Wrap(fault.Internal, err, "delete a volume from the trash")
	}
	v.mu.Lock()
	delete(v.bin, id)
	v.mu.Unlock()
	return nil
}
