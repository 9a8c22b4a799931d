package container

import (
	"time"

	"berth/network"
)

// Info is a snapshot of one container for inspect and list. Neither the engine nor a reader changes it once it was handed out.
type Info struct {
	ID      string // 64 hex digits
	Name    string // without the leading slash
	Created time.Time

	LinkNames []string // further names by links, "parent/alias"; set by List only

	Path string   // first word of the command line
	Args []string // the rest of it

	// Spec is what was asked, completed with the image's configuration (command, environment, user, labels …). Shared, read only.
	Spec  *Spec
	State State

	ImageID      string // config digest
	Platform     string // operating system, "linux"
	Driver       string // "overlay2"
	RestartCount int    // times the restart policy started it since the last start by a person

	LogPath        string // "" where nothing is logged to a file
	HostnamePath   string
	HostsPath      string
	ResolvConfPath string

	AppArmorProfile string
	ProcessLabel    string
	MountLabel      string

	Command    string // the command line for list, as Docker quotes it
	ExecIDs    []string
	SizeRw     *int64 // bytes of the writable layer; set only when asked for
	SizeRootFs *int64 // bytes of everything; set only when asked for

	Mounts  []MountPoint    // what is mounted into it, by destination
	Sandbox network.Sandbox // its network while it runs; zero where it has none of its own, or another's

	Upper, Work string   // overlay directories of this container, for GraphDriver
	Lower       []string // topmost first
}

// MountPoint is one mount as inspect shows it.
type MountPoint struct {
	Type        string // "bind", "volume", "tmpfs" or "image"
	Name        string // of a volume
	Source      string // host path, or the reference of an image; "" for a tmpfs and for a volume whose plugin tells it only when mounted
	Destination string
	Driver      string // of a volume
	Mode        string // options as typed
	RW          bool
	Propagation string
}

// State is where a container stands.
type State struct {
	Status     Status
	Running    bool // true as well while paused or restarting, as in Docker
	Paused     bool
	Restarting bool
	OOMKilled  bool
	Dead       bool
	Pid        int // on the host; 0 when not running
	ExitCode   int
	Error      string // why the last start failed
	StartedAt  time.Time
	FinishedAt time.Time
	// ManuallyStopped is set by stop and kill and keeps the restart policy from acting.
	ManuallyStopped bool
	// Signal that ended the process, 0 when it exited by itself.
	Signal int
	// Unknown: the process is gone and nobody saw its exit status (ExitCode is 255).
	Unknown bool
	// Health is what its probes found; nil where it has no check, and before its first start.
	Health *Health `json:",omitzero"`
}

// ExitStatus is what a waiter receives.
type ExitStatus struct {
	Code int
	Err  string // set when the container could not be waited for or removed
}

// WaitCondition chooses the moment a waiter waits for.
type WaitCondition string

const (
	WaitNotRunning WaitCondition = "not-running" // at once when it is not running
	WaitNextExit   WaitCondition = "next-exit"
	WaitRemoved    WaitCondition = "removed"
)

// Filters selects containers: name of the filter to its accepted values (any of them matches).
// Known names: id name label label! status exited ancestor before since volume network publish expose health isolation is-task until.
type Filters map[string][]string

// Status is the one word for a container's state.
type Status string

const (
	Created    Status = "created"
	Running    Status = "running"
	Paused     Status = "paused"
	Restarting Status = "restarting"
	Removing   Status = "removing"
	Exited     Status = "exited"
	Dead       Status = "dead"
)
