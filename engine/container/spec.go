package container

import (
	"strings"
	"time"

	"berth/network"
)

// Spec is what a container is asked to be. Zero values mean "not asked for"; slices distinguish nil (the default) from empty
// (none at all) where a comment says so. A Spec is treated as immutable once a container was created from it.
type Spec struct {
	Image       string            `json:",omitzero"` // reference as the client gave it
	ImageID     string            `json:",omitzero"` // config digest it resolved to, "sha256:…"; set by Create
	Platform    string            `json:",omitzero"` // "os/arch[/variant]" asked for, "" the host's
	Labels      map[string]string `json:",omitzero"`
	Annotations map[string]string `json:",omitzero"`

	Process    Process    `json:",omitzero"`
	Hostname   string     `json:",omitzero"` // "" becomes the short id (or the host's name with the host's UTS namespace)
	Domainname string     `json:",omitzero"`
	Mounts     []Mount    `json:",omitzero"`
	Namespaces Namespaces `json:",omitzero"`
	Resources  Resources  `json:",omitzero"`
	Security   Security   `json:",omitzero"`
	Network    Network    `json:",omitzero"`
	Log        Log        `json:",omitzero"`
	Restart    Restart    `json:",omitzero"`
	AutoRemove bool       `json:",omitzero"`

	StorageOpt map[string]string `json:",omitzero"` // "size": most that the writable layer may hold, "10G"

	StopSignal  string `json:",omitzero"` // name or number; "" SIGTERM
	StopTimeout *int   `json:",omitzero"` // seconds; nil 10; negative: wait for ever

	OpenStdin    bool    `json:",omitzero"` // keep a stdin for attachers
	StdinOnce    bool    `json:",omitzero"` // close stdin when the first attacher leaves
	AttachStdin  bool    `json:",omitzero"`
	AttachStdout bool    `json:",omitzero"`
	AttachStderr bool    `json:",omitzero"`
	ConsoleSize  [2]uint `json:",omitzero"` // rows, columns

	Plugin string `json:",omitzero"` // id of the managed plugin that the container runs: no list shows it, only its full id finds it

	Init    *bool  `json:",omitzero"` // run a reaping init as pid 1; nil: the engine's default
	Runtime string `json:",omitzero"` // "" the engine's own; in a request: the engine's default

	Healthcheck *Healthcheck `json:",omitzero"`

	// Carried for inspect and for commit; the engine of this build does not act on them.
	OnBuild         []string            `json:",omitzero"`
	Shell           []string            `json:",omitzero"`
	Volumes         map[string]struct{} `json:",omitzero"` // anonymous volumes of the image's configuration
	ExposedPorts    []string            `json:",omitzero"` // "80/tcp"
	VolumesFrom     []string            `json:",omitzero"` // "container" or "container:ro"
	VolumeDriver    string              `json:",omitzero"` // of volumes made for this container; "" local
	ContainerIDFile string              `json:",omitzero"`
}

// Process is the first process of a container. Entrypoint and Cmd follow Docker's rule: an Entrypoint given by the client
// discards the image's Cmd; nil means "from the image", empty means "none".
type Process struct {
	Entrypoint  []string `json:",omitzero"`
	Cmd         []string `json:",omitzero"`
	ArgsEscaped bool     `json:",omitzero"` // Windows only; carried for inspect
	Env         []string `json:",omitzero"` // "NAME=value"; a bare "NAME" removes it
	WorkingDir  string   `json:",omitzero"` // "" the image's, else "/"
	User        string   `json:",omitzero"` // "user", "uid", "user:group", "uid:gid"
	GroupAdd    []string `json:",omitzero"` // names or numbers
	Umask       *uint32  `json:",omitzero"` // 0 to 0777; nil: 022
	TTY         bool     `json:",omitzero"`
}

// Mount is one thing mounted into a container.
type Mount struct {
	Type     string `json:",omitzero"` // "bind", "volume", "tmpfs" or "image"
	Source   string `json:",omitzero"` // absolute host path of a bind; name of a volume, "" one made for this container alone; reference of an image
	Target   string `json:",omitzero"` // absolute path in the container
	ReadOnly bool   `json:",omitzero"`

	Propagation string `json:",omitzero"` // rprivate (default) private rshared shared rslave slave
	Mode        string `json:",omitzero"` // options as typed after -v's second colon, for inspect ("ro,z")
	Relabel     string `json:",omitzero"` // "" "z" (shared SELinux label) "Z" (private)
	FromBinds   bool   `json:",omitzero"` // came from -v: a missing source directory is made; from --mount it is an error
	FromTmpfs   bool   `json:",omitzero"` // came from --tmpfs rather than --mount type=tmpfs
	Consistency string `json:",omitzero"` // carried for inspect

	NonRecursive           bool `json:",omitzero"` // bind without the mounts beneath the source
	CreateMountpoint       bool `json:",omitzero"` // --mount …,bind-create-src: make a missing source directory
	ReadOnlyNonRecursive   bool `json:",omitzero"` // the mounts beneath a read-only bind stay writable
	ReadOnlyForceRecursive bool `json:",omitzero"` // fail where the kernel cannot make them read-only (before Linux 5.12)

	IDMap bool `json:",omitzero"` // shown with the ids of the container's user namespace, or shifted as the option says; needs Linux 5.12

	Driver        string            `json:",omitzero"` // of a volume that has to be made; "" the container's VolumeDriver, else local
	DriverOptions map[string]string `json:",omitzero"`
	VolumeLabels  map[string]string `json:",omitzero"`
	NoCopy        bool              `json:",omitzero"` // an empty volume stays empty: the image's content at Target is not copied into it
	Subpath       string            `json:",omitzero"` // directory or file inside the volume or image, relative
	FromImage     bool              `json:",omitzero"` // the image's configuration asks for this volume (VOLUME)
	FromContainer string            `json:",omitzero"` // id of the container whose mount this is (--volumes-from)
	Anonymous     bool              `json:",omitzero"` // in a Record: the volume was made for this container and goes with it
	Path          string            `json:",omitzero"` // in a Record: host path of the volume's content as of the creation; a plugin tells it later

	TmpfsSize    int64  `json:",omitzero"` // bytes; 0 the kernel's default
	TmpfsMode    uint32 `json:",omitzero"` // permission bits; 0: 01777
	TmpfsOptions string `json:",omitzero"` // mount options as typed with --tmpfs, comma separated
}

// Namespaces says with whom a container shares a kernel namespace: "" is the default (private, and for IPC what the engine was
// configured with), "private", "host", "shareable" and "none" (IPC), "container:ID".
type Namespaces struct {
	PID    string `json:",omitzero"`
	IPC    string `json:",omitzero"`
	UTS    string `json:",omitzero"`
	User   string `json:",omitzero"`
	Cgroup string `json:",omitzero"`
}

// Resources are limits and weights. They are the part of a Spec that `docker update` may change while the container runs.
type Resources struct {
	Memory            int64  `json:",omitzero"` // bytes; 0 no limit
	MemoryReservation int64  `json:",omitzero"` // bytes, soft limit
	MemorySwap        int64  `json:",omitzero"` // bytes of memory and swap together; -1 unlimited swap; 0 twice Memory
	MemorySwappiness  *int64 `json:",omitzero"` // 0-100, cgroup v1; nil or -1 the kernel's
	KernelMemory      int64  `json:",omitzero"` // refused: the kernel dropped it in 5.4
	KernelMemoryTCP   int64  `json:",omitzero"` // bytes, cgroup v1

	NanoCPUs           int64  `json:",omitzero"` // 1e9 is one CPU
	CPUShares          int64  `json:",omitzero"` // v1 scale, 2-262144, default 1024
	CPUPeriod          int64  `json:",omitzero"` // µs
	CPUQuota           int64  `json:",omitzero"` // µs per period
	CPURealtimePeriod  int64  `json:",omitzero"` // µs, cgroup v1
	CPURealtimeRuntime int64  `json:",omitzero"` // µs, cgroup v1
	CpusetCpus         string `json:",omitzero"` // "0-2,7"
	CpusetMems         string `json:",omitzero"`

	PidsLimit *int64 `json:",omitzero"` // nil or 0 or -1: none

	BlkioWeight          uint16           `json:",omitzero"` // 10-1000
	BlkioWeightDevice    []WeightDevice   `json:",omitzero"`
	BlkioDeviceReadBps   []ThrottleDevice `json:",omitzero"` // bytes per second
	BlkioDeviceWriteBps  []ThrottleDevice `json:",omitzero"`
	BlkioDeviceReadIOps  []ThrottleDevice `json:",omitzero"` // operations per second
	BlkioDeviceWriteIOps []ThrottleDevice `json:",omitzero"`

	OOMKillDisable *bool `json:",omitzero"` // cgroup v1
	OOMScoreAdj    int   `json:",omitzero"` // -1000 to 1000

	Ulimits           []Ulimit        `json:",omitzero"`
	Devices           []Device        `json:",omitzero"`
	DeviceCgroupRules []string        `json:",omitzero"` // "c 13:* rwm"
	DeviceRequests    []DeviceRequest `json:",omitzero"` // --gpus and CDI; see engine/cdi
	CgroupParent      string          `json:",omitzero"` // "" the engine's
	ShmSize           int64           `json:",omitzero"` // bytes of /dev/shm; 0: 64 MiB
}

// WeightDevice is a proportional share of one block device.
type WeightDevice struct {
	Path   string
	Weight uint16
}

// ThrottleDevice is a rate for one block device.
type ThrottleDevice struct {
	Path string
	Rate uint64
}

// Ulimit is one resource limit, see getrlimit(2); -1 is unlimited.
type Ulimit struct {
	Name string // "nofile"
	Soft int64
	Hard int64
}

// Device is a host device, or a directory of them, made visible in the container.
type Device struct {
	Source      string // path on the host
	Target      string // path in the container
	Permissions string // of "rwm"
}

// DeviceRequest asks for devices by what they are rather than by where their nodes lie.
type DeviceRequest struct {
	Driver       string            `json:",omitzero"` // "cdi", "nvidia", "amd"; "" whoever has the capabilities
	Count        int               `json:",omitzero"` // -1: all
	DeviceIDs    []string          `json:",omitzero"` // qualified names for "cdi"
	Capabilities [][]string        `json:",omitzero"` // alternatives, each a list of what must come together: [["gpu", "compute"]]
	Options      map[string]string `json:",omitzero"`
}

// Security narrows or widens what the processes may do.
type Security struct {
	Privileged     bool              `json:",omitzero"`
	CapAdd         []string          `json:",omitzero"` // with or without "CAP_"; "ALL"
	CapDrop        []string          `json:",omitzero"`
	SecurityOpt    []string          `json:",omitzero"` // "seccomp=JSON or unconfined", "apparmor=…", "label=…", "no-new-privileges"; profile files are read by the client
	ReadonlyRootfs bool              `json:",omitzero"`
	Sysctls        map[string]string `json:",omitzero"`
	MaskedPaths    []string          `json:",omitzero"` // nil: the default list; empty: none
	ReadonlyPaths  []string          `json:",omitzero"` // nil: the default list; empty: none
	UsernsMode     string            `json:",omitzero"` // "" the engine's default, "host", "auto[:options]", "container:ID"
}

// Network says which network the container lives in and what its resolver files hold.
type Network struct {
	Mode       string   `json:",omitzero"` // "none", "host", "container:ID", "bridge" or a network's name or id; "" and "default" are "bridge"
	DNS        []string `json:",omitzero"` // addresses
	DNSSearch  []string `json:",omitzero"`
	DNSOptions []string `json:",omitzero"`
	ExtraHosts []string `json:",omitzero"` // "name:address"
	MacAddress string   `json:",omitzero"`
	Disabled   bool     `json:",omitzero"` // no interface but loopback, as Mode "none"

	Endpoints  []network.EndpointSpec `json:",omitzero"` // by network; one of the Mode's network is added where it is missing
	Ports      []network.PortSpec     `json:",omitzero"`
	PublishAll bool                   `json:",omitzero"` // every exposed port gets one of the host's
	Links      []string               `json:",omitzero"` // "container:alias", of the default bridge
	Rate       uint64                 `json:",omitzero"` // bits per second and interface, in and out each; 0: no limit
	Weight     uint16                 `json:",omitzero"` // share of the networks' bandwidth, 1-1000; 0: 100
}

// Log chooses where output is kept.
type Log struct {
	Driver  string            `json:",omitzero"` // "" the engine's default; "json-file" or "none"
	Options map[string]string `json:",omitzero"` // max-size, max-file, labels, labels-regex, env, env-regex, tag, mode, max-buffer-size
}

// Restart says when a stopped container is started again.
type Restart struct {
	Name       string `json:",omitzero"` // "" and "no", "always", "unless-stopped", "on-failure", "on-unhealthy"
	MaxRetries int    `json:",omitzero"` // on-failure and on-unhealthy only; 0 for ever
}

// Healthcheck is the image's or the client's health test; package health acts on it. Zero durations and counts are Docker's defaults.
type Healthcheck struct {
	Test          []string      `json:",omitzero"` // {"CMD", word…}, {"CMD-SHELL", line}, {"NONE"}; none: the image's
	Interval      time.Duration `json:",omitzero"`
	Timeout       time.Duration `json:",omitzero"`
	StartPeriod   time.Duration `json:",omitzero"`
	StartInterval time.Duration `json:",omitzero"`
	Retries       int           `json:",omitzero"`
}

// ExecSpec is a further process asked for in a running container.
type ExecSpec struct {
	Cmd          []string `json:",omitzero"`
	Env          []string `json:",omitzero"` // added to the container's
	WorkingDir   string   `json:",omitzero"` // "" the container's
	User         string   `json:",omitzero"` // "" the container's
	Privileged   bool     `json:",omitzero"`
	TTY          bool     `json:",omitzero"`
	AttachStdin  bool     `json:",omitzero"`
	AttachStdout bool     `json:",omitzero"`
	AttachStderr bool     `json:",omitzero"`
	DetachKeys   string   `json:",omitzero"`
	ConsoleSize  [2]uint  `json:",omitzero"` // rows, columns
}

// IsContainer reports whether the network is that of another container.
func (n Network) IsContainer() bool { return strings.HasPrefix(n.Mode, "container:") }
