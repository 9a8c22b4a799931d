package volume

import "time"

// Volume is a named directory that outlives containers. A Volume that was handed out is not changed.
type Volume struct {
	Name       string            `json:"name"`
	Driver     string            `json:"driver"` // "local" or a plugin's name
	Created    time.Time         `json:"created"`
	Labels     map[string]string `json:"labels,omitempty"`
	Options    map[string]string `json:"options,omitempty"`
	Anonymous  bool              `json:"anonymous,omitempty"`  // its name was made up; goes with its container (--rm, rm -v)
	Mountpoint string            `json:"-"`                    // host path of its content; "" while a driver has it not mounted
	Status     map[string]any    `json:"-"`                    // what a plugin tells
	Scope      string            `json:"-"`                    // "local", or "global" when its driver serves other hosts too
	SnapshotOf string            `json:"snapshotOf,omitempty"` // the volume whose content of an earlier moment it is; read-only
}

// CreateRequest asks for a volume. A volume of that name with the same driver is handed back as it is.
type CreateRequest struct {
	Name   string // "" made up: 64 hex digits, anonymous
	Driver string // "" local
	// Anonymous: Name was made up by who asks, for one container alone. A Name "" is anonymous in any case.
	Anonymous bool
	Labels    map[string]string
	Options   map[string]string // local: type, o, device as of mount(8), and size
}
