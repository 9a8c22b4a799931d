package wire

import (
	"os"
	"time"
)

// Launch asks for a process: a container's init (Proc "") or a process in a running container.
type Launch struct {
	ID   string // the container
	Proc string // "" for the container's init, else the exec's id

	Program []byte // launch.Program, encoded; travels in a memfd where it is large

	Terminal   bool   // the program makes a terminal; Rows and Cols are its first size
	Rows, Cols uint16 // 0: left as the kernel makes it

	Stdin     bool // there is a stdin to write to; without it the process reads /dev/null
	StdinOnce bool // stdin closes when the first attached client's stdin ends
	NoOutput  bool // stdout and stderr are /dev/null: nobody will ever attach or read a log

	Log  LogConfig
	Gate bool // the process waits before execve until Release

	// Enters names the processes by whose numbers the program opens namespaces: the first processes of containers. If one has ended by the time
	// that they are open, the launch fails with fault.Gone.
	Enters []Entered

	// Attach makes attachments before the first byte of output can be missed. Their sockets come
	// back in Started.Attached in this order. ID and Proc in them are ignored.
	Attach []AttachRequest
}

// Entered is the first process of a container.
type Entered struct {
	ID  string
	PID int
}

// Encode writes the message's fields.
func (m *Entered) Encode(e *Enc) {
	e.Str(1, m.ID)
	e.Uint(2, uint64(m.PID))
}

// Decode reads the message's fields.
func (m *Entered) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.ID = d.Str()
		case 2:
			m.PID = int(d.Uint())
		}
	}
}

// LogConfig says where the output of a process goes beside its attachments.
type LogConfig struct {
	Format   string // "json-file", "local", or "none" (also "")
	Path     string // absolute
	MaxSize  int64  // bytes at which the file is rotated; <= 0: never
	MaxFiles int    // files kept in all, the current one included; 0 is 1
	Attrs    []Attr // extra fields of every line ("attrs"), in this order

	// Keep: somebody ships what is in the files, and a file that was not shipped (Shipped) is not rotated
	// away. The process is not read on, and blocks in the end, until it was; its last words, once it has
	// ended, are written beyond the size. It wants MaxFiles of 2 and more.
	Keep bool
	// NonBlock: what the file system refuses is dropped at once instead of blocking the process a while.
	NonBlock bool
	// Announce: rotations are told to clients, to compress what was rotated.
	Announce bool
}

// Attr is one extra field of a log line.
type Attr struct{ Key, Value string }

// Started is a process that runs, or waits at its gate.
type Started struct {
	PID       int       // in the keeper's pid namespace
	StartTime time.Time // when execve had succeeded (or the gate was reached)
}

// AttachRequest asks for a stream socket to a process.
type AttachRequest struct {
	ID, Proc              string
	Stdin, Stdout, Stderr bool
	Framed                bool   // Docker's 8-byte header before each piece of output
	DetachKeys            []byte // these bytes in a row, typed into a terminal's stdin, end the attachment

	// Sock, when set, is attached itself (a client's own connection, for instance) instead of one
	// end of a new socket pair; the keeper gets a descriptor of its own and the caller may close
	// Sock. It is no field of the message: it travels beside it, and OwnSock says so.
	Sock    *os.File
	OwnSock bool
}

// Exit is the end of a process.
type Exit struct {
	ID, Proc string
	PID      int
	Code     int       // exit status, 128+Signal when a signal ended it
	Signal   int       // 0 unless a signal ended it
	Core     bool      // the kernel says that it dumped core
	Unknown  bool      // it is gone and nobody could learn how; Code is 255
	At       time.Time // when the keeper learnt of it
}

// ProcState is what the keeper holds of one process.
type ProcState struct {
	ID, Proc  string
	PID       int
	StartTime time.Time
	Running   bool // not yet reaped, or its end not yet known
	Gated     bool // waits for Release
	Terminal  bool
	StdinOpen bool
	Adopted   bool   // a former keeper's child: its exit status may be unknown
	Exit      *Exit  // nil while Running
	LogPath   string // "" when nothing is logged
	LogFaults uint64 // failed writes of the log so far
	LogLost   uint64 // bytes of output dropped from the log after such failures
	Attached  int    // attachments now
}

// Info is what the keeper says of itself.
type Info struct {
	Version     string // the keeper binary's
	Protocol    int    // the newest it speaks
	PID         int
	Started     time.Time // when this process began; an upgrade in place keeps it
	Upgrades    int       // upgrades in place since then
	Procs       int       // processes held, exits without acknowledgement included
	Running     int
	Parked      int // parked descriptors
	Clients     int
	RSS         int64  // bytes resident now
	OOMScoreAdj int    // as the kernel has it now
	OOMError    string // why the wanted value could not be set, or ""
	LogFaults   uint64 // over all containers, since Started
	LogLost     uint64
	Orphans     uint64 // processes of nobody that were reaped
	Launching   int    // launches under way or waiting for their turn
}

func encTime(e *Enc, tag byte, t time.Time) {
	if !t.IsZero() {
		e.Int(tag, t.UnixNano())
	}
}

func decTime(d *Dec) time.Time { return time.Unix(0, d.Int()).UTC() }

// Encode appends the message's fields.
func (m *Launch) Encode(e *Enc) {
	e.Str(1, m.ID)
	e.Str(2, m.Proc)
	e.Bytes(3, m.Program)
	e.Bool(4, m.Terminal)
	e.Uint(5, uint64(m.Rows))
	e.Uint(6, uint64(m.Cols))
	e.Bool(7, m.Stdin)
	e.Bool(8, m.StdinOnce)
	e.Bool(9, m.NoOutput)
	e.Msg(10, &m.Log)
	e.Bool(11, m.Gate)
	for i := range m.Attach {
		e.Msg(12, &m.Attach[i])
	}
	for i := range m.Enters {
		e.Msg(13, &m.Enters[i])
	}
}

// Decode reads the message's fields. Program points into the packet.
func (m *Launch) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.ID = d.Str()
		case 2:
			m.Proc = d.Str()
		case 3:
			m.Program = d.Bytes()
		case 4:
			m.Terminal = d.Bool()
		case 5:
			m.Rows = uint16(d.Uint())
		case 6:
			m.Cols = uint16(d.Uint())
		case 7:
			m.Stdin = d.Bool()
		case 8:
			m.StdinOnce = d.Bool()
		case 9:
			m.NoOutput = d.Bool()
		case 10:
			d.Msg(&m.Log)
		case 11:
			m.Gate = d.Bool()
		case 12:
			var a AttachRequest
			d.Msg(&a)
			m.Attach = append(m.Attach, a)
		case 13:
			var x Entered
			d.Msg(&x)
			m.Enters = append(m.Enters, x)
		}
	}
}

// Encode appends the message's fields.
func (m *LogConfig) Encode(e *Enc) {
	e.Str(1, m.Format)
	e.Str(2, m.Path)
	e.Int(3, m.MaxSize)
	e.Int(4, int64(m.MaxFiles))
	for i := range m.Attrs {
		e.Msg(5, &m.Attrs[i])
	}
	e.Bool(6, m.Keep)
	e.Bool(7, m.NonBlock)
	e.Bool(8, m.Announce)
}

// Decode reads the message's fields.
func (m *LogConfig) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.Format = d.Str()
		case 2:
			m.Path = d.Str()
		case 3:
			m.MaxSize = d.Int()
		case 4:
			m.MaxFiles = int(d.Int())
		case 5:
			var a Attr
			d.Msg(&a)
			m.Attrs = append(m.Attrs, a)
		case 6:
			m.Keep = d.Bool()
		case 7:
			m.NonBlock = d.Bool()
		case 8:
			m.Announce = d.Bool()
		}
	}
}

// Encode appends the message's fields.
func (m *Attr) Encode(e *Enc) { e.Str(1, m.Key); e.Str(2, m.Value) }

// Decode reads the message's fields.
func (m *Attr) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.Key = d.Str()
		case 2:
			m.Value = d.Str()
		}
	}
}

// Encode appends the message's fields.
func (m *Started) Encode(e *Enc) { e.Int(1, int64(m.PID)); encTime(e, 2, m.StartTime) }

// Decode reads the message's fields.
func (m *Started) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.PID = int(d.Int())
		case 2:
			m.StartTime = decTime(d)
		}
	}
}

// Encode appends the message's fields.
func (m *AttachRequest) Encode(e *Enc) {
	e.Str(1, m.ID)
	e.Str(2, m.Proc)
	e.Bool(3, m.Stdin)
	e.Bool(4, m.Stdout)
	e.Bool(5, m.Stderr)
	e.Bool(6, m.Framed)
	e.Bytes(7, m.DetachKeys)
	e.Bool(8, m.OwnSock || m.Sock != nil)
}

// Decode reads the message's fields.
func (m *AttachRequest) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.ID = d.Str()
		case 2:
			m.Proc = d.Str()
		case 3:
			m.Stdin = d.Bool()
		case 4:
			m.Stdout = d.Bool()
		case 5:
			m.Stderr = d.Bool()
		case 6:
			m.Framed = d.Bool()
		case 7:
			m.DetachKeys = append([]byte(nil), d.Bytes()...)
		case 8:
			m.OwnSock = d.Bool()
		}
	}
}

// Encode appends the message's fields.
func (m *Exit) Encode(e *Enc) {
	e.Str(1, m.ID)
	e.Str(2, m.Proc)
	e.Int(3, int64(m.PID))
	e.Int(4, int64(m.Code))
	e.Int(5, int64(m.Signal))
	e.Bool(6, m.Core)
	e.Bool(7, m.Unknown)
	encTime(e, 8, m.At)
}

// Decode reads the message's fields.
func (m *Exit) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.ID = d.Str()
		case 2:
			m.Proc = d.Str()
		case 3:
			m.PID = int(d.Int())
		case 4:
			m.Code = int(d.Int())
		case 5:
			m.Signal = int(d.Int())
		case 6:
			m.Core = d.Bool()
		case 7:
			m.Unknown = d.Bool()
		case 8:
			m.At = decTime(d)
		}
	}
}

// Encode appends the message's fields.
func (m *ProcState) Encode(e *Enc) {
	e.Str(1, m.ID)
	e.Str(2, m.Proc)
	e.Int(3, int64(m.PID))
	encTime(e, 4, m.StartTime)
	e.Bool(5, m.Running)
	e.Bool(6, m.Gated)
	e.Bool(7, m.Terminal)
	e.Bool(8, m.StdinOpen)
	e.Bool(9, m.Adopted)
	if m.Exit != nil {
		e.Msg(10, m.Exit)
	}
	e.Str(11, m.LogPath)
	e.Uint(12, m.LogFaults)
	e.Uint(13, m.LogLost)
	e.Int(14, int64(m.Attached))
}

// Decode reads the message's fields.
func (m *ProcState) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.ID = d.Str()
		case 2:
			m.Proc = d.Str()
		case 3:
			m.PID = int(d.Int())
		case 4:
			m.StartTime = decTime(d)
		case 5:
			m.Running = d.Bool()
		case 6:
			m.Gated = d.Bool()
		case 7:
			m.Terminal = d.Bool()
		case 8:
			m.StdinOpen = d.Bool()
		case 9:
			m.Adopted = d.Bool()
		case 10:
			m.Exit = new(Exit)
			d.Msg(m.Exit)
		case 11:
			m.LogPath = d.Str()
		case 12:
			m.LogFaults = d.Uint()
		case 13:
			m.LogLost = d.Uint()
		case 14:
			m.Attached = int(d.Int())
		}
	}
}

// Encode appends the message's fields.
func (m *Info) Encode(e *Enc) {
	e.Str(1, m.Version)
	e.Int(2, int64(m.Protocol))
	e.Int(3, int64(m.PID))
	encTime(e, 4, m.Started)
	e.Int(5, int64(m.Upgrades))
	e.Int(6, int64(m.Procs))
	e.Int(7, int64(m.Running))
	e.Int(8, int64(m.Parked))
	e.Int(9, int64(m.Clients))
	e.Int(10, m.RSS)
	e.Int(11, int64(m.OOMScoreAdj))
	e.Str(12, m.OOMError)
	e.Uint(13, m.LogFaults)
	e.Uint(14, m.LogLost)
	e.Uint(15, m.Orphans)
	e.Int(16, int64(m.Launching))
}

// Decode reads the message's fields.
func (m *Info) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.Version = d.Str()
		case 2:
			m.Protocol = int(d.Int())
		case 3:
			m.PID = int(d.Int())
		case 4:
			m.Started = decTime(d)
		case 5:
			m.Upgrades = int(d.Int())
		case 6:
			m.Procs = int(d.Int())
		case 7:
			m.Running = int(d.Int())
		case 8:
			m.Parked = int(d.Int())
		case 9:
			m.Clients = int(d.Int())
		case 10:
			m.RSS = d.Int()
		case 11:
			m.OOMScoreAdj = int(d.Int())
		case 12:
			m.OOMError = d.Str()
		case 13:
			m.LogFaults = d.Uint()
		case 14:
			m.LogLost = d.Uint()
		case 15:
			m.Orphans = d.Uint()
		case 16:
			m.Launching = int(d.Int())
		}
	}
}
