package exec

import (
	"context"
	"log/slog"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/build/session"
	"berth/build/snapshot"
	"berth/kernel/idmap"
	"berth/kernel/probe"
)

// Config is what a Runner needs.
type Config struct {
	Snapshots *snapshot.Store
	Sessions  *session.Manager
	// Root is the directory of cache mounts (DATA-ROOT/build/mounts), ExecRoot one for what lives only as long as steps do
	// (EXEC-ROOT/build). Both are made if they are missing and belong to the Runner alone.
	Root, ExecRoot string
	// CgroupParent is the cgroup below which each step has one of its own, build-ID; an absolute path.
	CgroupParent string
	// Networks gives steps their network; nil: only those without one, or with the host's, can run.
	Networks Networks
	// UserNS gives steps their user namespaces; nil: they live in the engine's.
	UserNS UserNS
	// Devices gives steps the devices they name; nil: none can be had.
	Devices Devices
	// SeccompProfile is Docker's JSON, "" the built-in one, "unconfined" none.
	SeccompProfile string
	Security       Security // nil: no security module confines steps
	// CgroupNS is the cgroup namespace of steps: "private", "host"; "" private on cgroup v2, host on v1.
	CgroupNS string
	// NofileHard is the hard limit of open files where a step sets none, with a soft one of 1024; 0: the engine's.
	NofileHard uint64
	// InUserNS says that the engine is root of a user namespace only.
	InUserNS bool
	Facts    probe.Features
	Log      *slog.Logger
}

// Mode is which network a step has.
type Mode int

// The modes.
const (
	Bridge Mode = iota // one of its own with a way out
	Host               // the engine's
	None               // nothing but a loopback
)

// Networks joins steps to networks.
type Networks interface {
	// Join gives the network of the step called id. With Bridge, on is the network or container to join, as in Limits. With Bridge and a mapping it belongs to a user namespace that has it, which is made with it.
	// Whoever joined calls Leave once its processes are gone.
	Join(ctx context.Context, id string, mode Mode, on string, ids *idmap.Pair) (Attached, error)
}

// Attached is the network of a step.
type Attached struct {
	// NetNS is the path of the network namespace; "" with Host is the engine's own, with None a new one.
	NetNS string
	// Resolv is the text of resolv.conf; nil: the host's.
	Resolv []byte
	// Hosts are lines that go to the end of /etc/hosts.
	Hosts []byte
	Leave func()
}

// Devices gives a specification what devices are made of; engine/cdi does.
type Devices interface {
	// List gives all devices that are described, by name. It reads what is described now.
	List() []Device
	// Inject edits the specification for devices by their qualified names ("vendor.com/class=name"). NotFound: there is none of a name.
	Inject(s *specs.Spec, names []string) error
}

// Limits are what a client may set beside the steps of a build, as the classic API takes them; no part of any key. 0 and
// "" set nothing.
type Limits struct {
	Memory, MemorySwap int64 // bytes
	CPUShares          uint64
	CPUPeriod          uint64 // microseconds
	CPUQuota           int64  // microseconds
	CpusetCpus         string
	CpusetMems         string
	ShmSize            int64 // bytes
	Ulimits            []Ulimit
	CgroupParent       string
	Network            string // that steps join which ask for none in particular: a name or id, or "container:NAME"; "": the default one
	NoNewPrivileges    bool
	SeccompUnconfined  bool
	ApparmorUnconfined bool
	LabelsDisabled     bool // SELinux does not confine the processes
}

// Ulimit is one resource limit of a step's processes (setrlimit(2)).
type Ulimit struct {
	Name       string // "nofile"
	Soft, Hard int64  // -1: none
}
