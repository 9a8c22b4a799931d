package container

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"berth/base/fault"
	"berth/base/id"
	"berth/kernel/idmap"
)

// Version of the record format that this build writes. It reads this one and older.
const Version = 1

// Record is what the engine keeps on disk about one container: everything fixed at creation or changed by rename and update.
// Where the container stands is not in it (see State).
type Record struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Spec    *Spec     `json:"spec"` // completed with the image's configuration

	Path     string   `json:"path"` // the command line, entrypoint and command joined
	Args     []string `json:"args"`
	ImageID  string   `json:"imageID"`
	Platform string   `json:"platform"`
	LogPath  string   `json:"logPath,omitempty"`
	Cgroup   string   `json:"cgroup"` // cgroup path below each hierarchy's root, "/berth/ID"

	// Mounts is everything mounted into the container: what the Spec asks for with its volumes named, the image's volumes, and the mounts
	// of other containers. nil in records before volumes: the Spec's.
	Mounts []Mount `json:"mounts,omitempty"`

	// IDMap is the mapping of the user namespace that the container lives in; nil: it lives in the engine's. UsernsOf is the container
	// whose user namespace that is, "" it has its own.
	IDMap    *idmap.Pair `json:"idMap,omitempty"`
	UsernsOf string      `json:"usernsOf,omitempty"`

	AppArmorProfile string `json:"appArmorProfile,omitempty"`
	ProcessLabel    string `json:"processLabel,omitempty"`
	MountLabel      string `json:"mountLabel,omitempty"`

	ViaOCI bool `json:"viaOCI,omitempty"` // berth-oci serves the container: its devices ask for what the engine's own launch does not do

	LayerSize    uint64 `json:"layerSize,omitempty"`    // bytes that the writable layer may hold; 0 no limit
	LayerProject uint32 `json:"layerProject,omitempty"` // the file system's number for it
}

// Encode gives the record's file.
func (r *Record) Encode() ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "encoding the record of container %s", r.ID)
	}
	return append(append(b, '\n'), seal(b)...), nil
}

// seal is the line behind a record that tells whether the record is still what was written.
func seal(record []byte) []byte {
	return fmt.Appendf(nil, "{\"crc32c\":\"%08x\"}\n", crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli)))
}

// Unsealed reports whether a record's file is not what Encode gave: it was changed by hand, or damaged. A file without a seal, of an
// earlier engine, counts as whole.
func Unsealed(b []byte) bool {
	record, rest, _ := bytes.Cut(b, []byte("\n"))
	return len(rest) > 0 && !bytes.Equal(rest, seal(record))
}

// DecodeRecord reads a record's file. It refuses what is incomplete, of another container than wantID, or of a newer version.
func DecodeRecord(b []byte, wantID string) (*Record, error) {
	var r Record
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&r); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "reading the record of container %s", wantID)
	}
	switch {
	case r.Version > Version:
		return nil, fault.New(fault.Internal, "the record of container %s has version %d; this build reads up to %d: use the newer engine that wrote it", wantID, r.Version, Version)
	case r.Version < 1, r.Spec == nil, r.Name == "", !id.Valid(r.ID):
		return nil, fault.New(fault.Internal, "the record of container %s is incomplete", wantID)
	case r.ID != wantID:
		return nil, fault.New(fault.Internal, "the record of container %s names container %s", wantID, r.ID)
	}
	return &r, nil
}

// AllMounts gives what is mounted into the container.
func (r *Record) AllMounts() []Mount {
	if r.Mounts == nil {
		return r.Spec.Mounts
	}
	return r.Mounts
}

// CommandLine joins path and arguments as list shows them: words with spaces are in single quotes.
func (r *Record) CommandLine() string {
	var b strings.Builder
	b.WriteString(r.Path)
	for _, a := range r.Args {
		b.WriteByte(' ')
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		b.WriteString(a)
	}
	return b.String()
}
