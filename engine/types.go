package engine

import (
	"io"
	"time"

	"berth/engine/container"
	"berth/kernel/cgroup"
)

// CreateResult is what Create hands back.
type CreateResult struct {
	ID       string
	Warnings []string
}

// StopOptions says how Stop and Restart end a container.
type StopOptions struct {
	Signal  string // "" the container's stop signal
	Timeout *int   // seconds until SIGKILL; nil the container's; negative: never
}

// RemoveOptions says how Remove treats what is in its way.
type RemoveOptions struct {
	Force   bool // kill it first when it runs
	Volumes bool // also its anonymous volumes
	Link    bool // remove a legacy link, which Berth has not: an error
}

// ListOptions selects and bounds a list.
type ListOptions struct {
	All     bool // also those that do not run
	Limit   int  // the N newest, running or not; 0 or less: no limit
	Before  string
	Since   string
	Filters container.Filters
	Size    bool // fill SizeRw and SizeRootFs
}

// LogOptions selects log lines.
type LogOptions struct {
	Stdout, Stderr bool
	Follow         bool
	Timestamps     bool // for the door, which formats; the engine only hands them over in each Line
	Details        bool
	Since, Until   time.Time // zero: no bound
	Tail           int       // last N lines; negative: all
}

// Line is one line, or a piece of a long one, as the process wrote it. Data ends in a newline unless the line goes on in the
// next Line of the same stream, or the output ended without one.
type Line struct {
	Stream byte // 1 stdout, 2 stderr
	Time   time.Time
	Data   []byte
	Attrs  map[string]string // labels, env and tag kept by the log's options; nil when none
}

// LogReader hands out lines, oldest first. Next gives io.EOF after the last one; with Follow that is once the container ended and
// its last line was handed out. It never repeats or loses a line while the log rotates or the engine restarts.
type LogReader interface {
	Next() (Line, error)
	Close() error
}

// AttachOptions chooses streams.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Logs                  bool   // first what was logged so far
	Stream                bool   // then what is written from now on
	DetachKeys            string // as typed ("ctrl-x,a"); "" ctrl-p,ctrl-q; only terminals have them
}

// Conn is one end of a stream to a process. Read gives its output until io.EOF, which comes after the last byte once the process
// is gone; Write feeds its stdin, CloseWrite ends that.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// Attachment is an attached stream. Without a terminal the bytes read carry Docker's eight byte stream headers; with one they are raw.
type Attachment struct {
	Conn Conn // nil for a detached exec
	TTY  bool
}

// ExecStartOptions says how a created exec is started.
type ExecStartOptions struct {
	Detach     bool
	TTY        bool
	Rows, Cols uint16
}

// ExecInfo is a snapshot of one exec.
type ExecInfo struct {
	ID          string
	ContainerID string
	Spec        container.ExecSpec
	User        string // as asked, else the container's
	Running     bool
	ExitCode    *int // nil while it has not ended
	Pid         int
	CanRemove   bool
}

// Top is a process table.
type Top struct {
	Titles    []string
	Processes [][]string
}

// Stats is a reading of a container's cgroup with what is needed to make sense of it.
type Stats struct {
	ID, Name string
	Read     time.Time
	Cgroup   cgroup.Stats
	CPUs     int   // of the host that are online
	Memory   int64 // bytes of the host
	Running  bool
	NetDev   []byte // the container's /proc/net/dev (proc_pid_net(5)); nil on the host's network
}

// Facts are the engine's own figures for `info`.
type Facts struct {
	Containers, Running, Paused, Stopped int
	CgroupDriver, CgroupVersion          string
	CgroupParent                         string
	DataRoot, ExecRoot, Driver           string
	DefaultRuntime, InitBinary           string
	Runtimes                             []RuntimeFact // beside the built-in one
	LogDriver                            string
	LogsUnbounded                        bool // a container that says nothing has a log without limit
	KeeperPID                            int
	HealthChecks, HealthChecksFailed     uint64 // probes since the start of the engine; those that could not be made at all
	BootID                               string
	CDIDirs                              []string
	CDIDevices                           []string // qualified names
	Problems                             []error  // with specifications of devices
	AppArmor, SELinux                    bool     // containers are confined by them
	Userns                               bool     // containers have a user namespace unless they say otherwise
}

// Explanation says what was done to isolate a container and, for one that ended, why.
type Explanation struct {
	ID, Name string
	Program  string   // the launch program, one system call a line
	Limits   []string // one limit a line, in words, with the cgroup file that holds it
	Cgroup   string   // cgroup path
	Ended    string   // "" while it runs: one sentence, what ended it
	Details  []string // figures and hints behind Ended
}
