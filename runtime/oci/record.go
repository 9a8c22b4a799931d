package oci

import (
	"strconv"
	"time"

	"berth/base/fault"
	"berth/runtime/oci/jsonread"
)

// recordVersion is the version of state.json. It rises when an older berth-oci would misread a newer
// file; members that may be ignored do not raise it.
const recordVersion = 1

// record is what state.json says about a container: facts that do not change between create and
// delete. The status is derived, see status.go.
type record struct {
	Version    int // of the format
	OCIVersion string
	ID         string
	PID        int
	StartTime  uint64 // of PID, in clock ticks since boot (proc_pid_stat(5) field 22): tells a reused number
	Bundle     string // absolute
	Rootfs     string // absolute
	Created    time.Time
	ConfigHash string // of config.json at create, 16 hex digits of FNV-1a
	Cgroup     string // path below every hierarchy; "" without cgroups
	// Own is where a relative Cgroup starts in each hierarchy: the creator's own cgroups, by controllers.
	// A later command may be in others.
	Own         map[string]string
	Scope       string // systemd's unit, "" with plain directories
	UserScope   bool   // the unit belongs to the user's systemd
	PIDNS       bool   // the container has a pid namespace of its own: its end is the end of all in it
	Systemd     bool   // --systemd-cgroup
	Annotations map[string]string
	// SharesMounts: the container has no mount namespace of its own, so its mounts are ours to take away.
	// MountBefore is the number of the mount that Rootfs was on when it was made.
	SharesMounts bool
	MountBefore  uint64
}

// encode writes the record as state.json has it.
func (r *record) encode() []byte {
	b := make([]byte, 0, 1024)
	member := func(key string) {
		if len(b) == 0 {
			b = append(b, '{')
		} else {
			b = append(b, ',')
		}
		b = append(b, "\n  "...)
		b = appendJSON(b, key)
		b = append(b, ": "...)
	}
	text := func(key, value string) {
		member(key)
		b = appendJSON(b, value)
	}
	flag := func(key string, value bool) {
		member(key)
		b = strconv.AppendBool(b, value)
	}
	member("version")
	b = strconv.AppendInt(b, int64(r.Version), 10)
	text("ociVersion", r.OCIVersion)
	text("id", r.ID)
	member("pid")
	b = strconv.AppendInt(b, int64(r.PID), 10)
	member("startTime")
	b = strconv.AppendUint(b, r.StartTime, 10)
	text("bundle", r.Bundle)
	text("rootfs", r.Rootfs)
	text("created", r.Created.UTC().Format(time.RFC3339Nano))
	text("configHash", r.ConfigHash)
	text("cgroup", r.Cgroup)
	if len(r.Own) > 0 {
		member("ownCgroups")
		b = appendTextMap(b, r.Own)
	}
	if r.Systemd {
		flag("systemd", r.Systemd)
		text("scope", r.Scope)
		flag("userScope", r.UserScope)
	}
	flag("pidNamespace", r.PIDNS)
	if r.SharesMounts {
		member("mountBefore")
		b = strconv.AppendUint(b, r.MountBefore, 10)
	}
	if len(r.Annotations) > 0 {
		member("annotations")
		b = appendTextMap(b, r.Annotations)
	}
	return append(b, "\n}\n"...)
}

// decodeRecord reads state.json. Unknown members are ignored, a newer format is refused.
func decodeRecord(data []byte) (*record, error) {
	var r record
	var created string
	j := jsonread.New(data)
	j.Object(func(key string) {
		switch key {
		case "version":
			r.Version = int(j.Int())
		case "ociVersion":
			r.OCIVersion = j.Text()
		case "id":
			r.ID = j.Text()
		case "pid":
			r.PID = int(j.IntBelow(0, 1<<31-1))
		case "startTime":
			r.StartTime = j.Uint()
		case "bundle":
			r.Bundle = j.Text()
		case "rootfs":
			r.Rootfs = j.Text()
		case "created":
			created = j.Text()
		case "configHash":
			r.ConfigHash = j.Text()
		case "cgroup":
			r.Cgroup = j.Text()
		case "ownCgroups":
			r.Own = j.TextMap()
		case "systemd":
			r.Systemd = j.Bool()
		case "scope":
			r.Scope = j.Text()
		case "userScope":
			r.UserScope = j.Bool()
		case "pidNamespace":
			r.PIDNS = j.Bool()
		case "mountBefore":
			r.SharesMounts, r.MountBefore = true, j.Uint()
		case "annotations":
			r.Annotations = j.TextMap()
		default:
			j.Skip()
		}
	})
	if err := j.End(); err != nil {
		return nil, err
	}
	if r.Version < 1 || r.Version > recordVersion {
		return nil, fault.New(fault.Conflict, "state.json has format %d; this berth-oci reads format %d", r.Version, recordVersion)
	}
	var err error
	r.Created, err = time.Parse(time.RFC3339Nano, created)
	return &r, fault.Wrap(fault.Internal, err, "state.json")
}

// hashText is a fingerprint of a configuration: it tells whether two are the same, and guards
// against nothing. (FNV-1a; the hash packages are not worth linking for eight bytes.)
func hashText(data []byte) string {
	h := uint64(14695981039346656037)
	for _, c := range data {
		h = (h ^ uint64(c)) * 1099511628211
	}
	s := strconv.FormatUint(h, 16)
	return "0000000000000000"[len(s):] + s
}
