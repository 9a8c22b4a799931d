package volume

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"berth/base/atomicfile"
	"berth/base/fault"
)

const (
	recordFile    = "volume.json"
	recordVersion = 1
)

// record is ROOT/NAME/volume.json.
type record struct {
	Version int `json:"version"`
	Volume
}

// writeRecord puts the record into a volume's directory, durably.
func writeRecord(dir string, v *Volume) error {
	b, err := json.Marshal(record{recordVersion, *v})
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, recordFile), append(b, '\n'), 0o600)
}

// readRecord reads the record of a volume's directory. The directory's name is the volume's, whatever the record says: a rename
// moves the directory alone. found is false where there is no record.
func readRecord(dir string) (v Volume, found bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return v, false, nil
	}
	if err != nil {
		return v, false, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return v, false, fault.Wrap(fault.Internal, err, "read %s", filepath.Join(dir, recordFile))
	}
	if r.Version > recordVersion {
		return v, false, fault.New(fault.Internal, "%s has version %d, this build reads up to %d", filepath.Join(dir, recordFile), r.Version, recordVersion)
	}
	if r.Driver == "" {
		r.Driver = localDriver
	}
	r.Name = filepath.Base(dir)
	return r.Volume, true, nil
}

// foreignRecord makes up the record of a directory that has none: a volume that dockerd made, brought over with its directory.
// dockerd keeps options beside _data, in opts.json.
func foreignRecord(dir string) (v Volume, found bool, err error) {
	st, err := os.Lstat(filepath.Join(dir, "_data"))
	if errors.Is(err, fs.ErrNotExist) {
		return v, false, nil
	}
	if err != nil || !st.IsDir() {
		return v, false, err
	}
	v = Volume{Name: filepath.Base(dir), Driver: localDriver, Created: st.ModTime().UTC().Truncate(time.Second)}
	b, err := os.ReadFile(filepath.Join(dir, "opts.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return v, true, nil
	}
	if err != nil {
		return v, false, err
	}
	var o struct {
		MountType, MountOpts, MountDevice string
		Quota                             struct{ Size uint64 }
	}
	if err := json.Unmarshal(b, &o); err != nil {
		return v, false, fault.Wrap(fault.Internal, err, "read %s", filepath.Join(dir, "opts.json"))
	}
	if o.MountType != "" || o.MountDevice != "" {
		v.Options = map[string]string{"type": o.MountType, "device": o.MountDevice, "o": o.MountOpts}
	}
	return v, true, nil
}
