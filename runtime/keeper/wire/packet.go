package wire

import (
	"encoding/binary"
	"errors"
	"time"

	"berth/base/fault"
)

// Versions of the protocol that this build speaks. A hello names both; the keeper picks the highest
// that both know. A new field of a message is no new version, a new meaning of an old one is.
const (
	MinVersion = 1
	MaxVersion = 1
)

// MaxPacket is the largest packet either end sends. A launch program that does not fit beside the
// other fields goes by memfd (Request kind LaunchKind, flag ProgramFD).
const MaxPacket = 200 << 10

// MaxProgram bounds a program that comes by memfd.
const MaxProgram = 16 << 20

// MaxFDs is the most descriptors that one packet carries (the kernel's SCM_MAX_FD is 253).
const MaxFDs = 64

// Kind is what a packet is about. Requests and their replies have the same kind.
type Kind uint16

// Requests of a client.
const (
	HelloKind Kind = iota + 1
	LaunchKind
	ReleaseKind
	AttachKind
	SignalKind
	ResizeKind
	CloseStdinKind
	ListKind
	AckKind
	ForgetKind
	RotateLogKind
	ClearLogKind
	ParkKind
	TakeKind
	UnparkKind
	ParkedKind
	UpgradeKind
	ShutdownKind
	InfoKind
	AdoptKind       // a process of a dead keeper comes back, with its descriptors
	AdoptAttachKind // one of its attachments
	AdoptEndKind    // that was all: what is still missing is gone
	ShippedKind     // files of a log that are older than one were shipped (LogFile)
	PackedKind      // a compressed copy of a rotated file takes its place (LogFile)
)

// What the keeper says unasked (its seq is 0).
const (
	ExitKind       Kind = iota + 100 // a process ended; repeated to every new client until Ack
	HeldKind                         // insurance: a process's descriptors
	HeldAttachKind                   // insurance: the keeper's end of an attachment
	StdinGoneKind                    // the process's stdin is closed: so must the insured descriptor be
	AttachGoneKind                   // the attachment ended: so must the insured descriptor be
	RotatedKind                      // a log with Announce was rotated, a moment ago, perhaps more than once
)

// Flag is a bit in a packet's head.
type Flag uint16

const (
	Reply     Flag = 1 << iota // answers the request with this seq
	Failed                     // the body is an Error
	More                       // further packets of this reply follow
	ProgramFD                  // the first descriptor is a memfd with the program
)

// HeadLen is the length of a packet's head in bytes.
const HeadLen = 8

// Head begins every packet: kind (2 bytes), flags (2), seq (4), little-endian.
type Head struct {
	Kind Kind
	Flag Flag
	Seq  uint32
}

// ErrShort is a packet that is shorter than its head.
var ErrShort = errors.New("keeper protocol: packet shorter than its head")

// AppendHead appends the encoded head to b.
func AppendHead(b []byte, h Head) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(h.Kind))
	b = binary.LittleEndian.AppendUint16(b, uint16(h.Flag))
	return binary.LittleEndian.AppendUint32(b, h.Seq)
}

// ParseHead splits a packet into its head and its body.
func ParseHead(b []byte) (Head, []byte, error) {
	if len(b) < HeadLen {
		return Head{}, nil, ErrShort
	}
	return Head{
		Kind: Kind(binary.LittleEndian.Uint16(b)),
		Flag: Flag(binary.LittleEndian.Uint16(b[2:])),
		Seq:  binary.LittleEndian.Uint32(b[4:]),
	}, b[HeadLen:], nil
}

// Message is what a packet carries after its head.
type Message interface {
	Encode(*Enc)
	Decode(*Dec)
}

// Packet encodes a whole packet; m may be nil.
func Packet(h Head, m Message) []byte {
	e := Enc{B: AppendHead(make([]byte, 0, 128), h)}
	if m != nil {
		m.Encode(&e)
	}
	return e.B
}

// Unmarshal decodes a body into m.
func Unmarshal(b []byte, m Message) error {
	d := NewDec(b)
	m.Decode(d)
	return d.Err
}

// Hello is the first packet of a client and the reply to it.
type Hello struct {
	MinVersion, MaxVersion int    // request
	Name                   string // request: who is calling, for the keeper's log
	Insure                 bool   // request: wants the insurance; the slate comes beside the reply

	Version int    // reply: the version to speak
	Keeper  string // reply: the keeper binary's version
	PID     int    // reply
	Birth   uint64 // reply: random, of this keeper process; an upgrade in place keeps it
	Missing int    // reply: processes of a former keeper that wait for Adopt
}

// Encode appends the message's fields.
func (m *Hello) Encode(e *Enc) {
	e.Int(1, int64(m.MinVersion))
	e.Int(2, int64(m.MaxVersion))
	e.Str(3, m.Name)
	e.Bool(4, m.Insure)
	e.Int(5, int64(m.Version))
	e.Str(6, m.Keeper)
	e.Int(7, int64(m.PID))
	e.Uint(8, m.Birth)
	e.Int(9, int64(m.Missing))
}

// Decode reads the message's fields.
func (m *Hello) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.MinVersion = int(d.Int())
		case 2:
			m.MaxVersion = int(d.Int())
		case 3:
			m.Name = d.Str()
		case 4:
			m.Insure = d.Bool()
		case 5:
			m.Version = int(d.Int())
		case 6:
			m.Keeper = d.Str()
		case 7:
			m.PID = int(d.Int())
		case 8:
			m.Birth = d.Uint()
		case 9:
			m.Missing = int(d.Int())
		}
	}
}

// Request is the body of every request that needs only a few words: which ones depends on its kind.
type Request struct {
	ID, Proc   string
	Signal     int
	Rows, Cols uint16
	Name       string // park, take, unpark
	Path       string // upgrade: the binary; clear: the log of a container that does not run
	Attachment uint32
}

// Encode appends the message's fields.
func (m *Request) Encode(e *Enc) {
	e.Str(1, m.ID)
	e.Str(2, m.Proc)
	e.Int(3, int64(m.Signal))
	e.Uint(4, uint64(m.Rows))
	e.Uint(5, uint64(m.Cols))
	e.Str(6, m.Name)
	e.Str(7, m.Path)
	e.Uint(8, uint64(m.Attachment))
}

// Decode reads the message's fields.
func (m *Request) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.ID = d.Str()
		case 2:
			m.Proc = d.Str()
		case 3:
			m.Signal = int(d.Int())
		case 4:
			m.Rows = uint16(d.Uint())
		case 5:
			m.Cols = uint16(d.Uint())
		case 6:
			m.Name = d.Str()
		case 7:
			m.Path = d.Str()
		case 8:
			m.Attachment = uint32(d.Uint())
		}
	}
}

// LogFile names a file of a log.
type LogFile struct {
	ID     string // shipped: the container
	Path   string // packed: the log's current file
	Inode  uint64
	Packed string // packed: the compressed copy, on the same file system and safe on disk
}

// Encode appends the message's fields.
func (m *LogFile) Encode(e *Enc) {
	e.Str(1, m.ID)
	e.Str(2, m.Path)
	e.Uint(3, m.Inode)
	e.Str(4, m.Packed)
}

// Decode reads the message's fields.
func (m *LogFile) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.ID = d.Str()
		case 2:
			m.Path = d.Str()
		case 3:
			m.Inode = d.Uint()
		case 4:
			m.Packed = d.Str()
		}
	}
}

// Error is a refused or failed request.
type Error struct {
	Kind fault.Kind
	Text string

	// Of a failed start, else "" and zero: which step of the program failed, in which call, how.
	Step, Call string
	Errno      int
	Exec       bool   // the call was execve of the user's program
	Arg0       string // what was to be executed
}

// Numbers of fault kinds on the wire; a number is never used twice. Unknown ones read as Internal.
var kindNumbers = [...]struct {
	n uint64
	k fault.Kind
}{
	{1, fault.Internal}, {2, fault.Invalid}, {3, fault.NotFound}, {4, fault.Conflict},
	{5, fault.NotModified}, {6, fault.Forbidden}, {7, fault.Unauthorized}, {8, fault.Unavailable},
	{9, fault.NotImplemented}, {10, fault.Cancelled}, {11, fault.Deadline}, {12, fault.Gone},
}

// Encode appends the message's fields.
func (m *Error) Encode(e *Enc) {
	for _, x := range kindNumbers {
		if x.k == m.Kind {
			e.Uint(1, x.n)
		}
	}
	e.Str(2, m.Text)
	e.Str(3, m.Step)
	e.Str(4, m.Call)
	e.Int(5, int64(m.Errno))
	e.Bool(6, m.Exec)
	e.Str(7, m.Arg0)
}

// Decode reads the message's fields.
func (m *Error) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			n := d.Uint()
			for _, x := range kindNumbers {
				if x.n == n {
					m.Kind = x.k
				}
			}
		case 2:
			m.Text = d.Str()
		case 3:
			m.Step = d.Str()
		case 4:
			m.Call = d.Str()
		case 5:
			m.Errno = int(d.Int())
		case 6:
			m.Exec = d.Bool()
		case 7:
			m.Arg0 = d.Str()
		}
	}
}

// Desc is a process as it must be known to whoever takes it over: the journal, a client as
// insurance, the next binary after an upgrade.
type Desc struct {
	ID, Proc  string
	PID       int
	StartTime time.Time
	Terminal  bool
	StdinOnce bool
	Log       LogConfig
	Slot      uint32 // in the slate
	Gated     bool
	Adopted   bool // not this keeper's child

	// Which process the pid means, against its reuse: the pidfd's inode (unique in a boot, Linux
	// 6.9), or where that is 0 the start time in clock ticks since boot (/proc/PID/stat, field 22).
	PidfdInode uint64
	StartTicks uint64

	// Inodes of the pipes that are its stdin, stdout and stderr; 0: none.
	PipeInodes [3]uint64
}

// Encode appends the message's fields.
func (m *Desc) Encode(e *Enc) {
	e.Str(1, m.ID)
	e.Str(2, m.Proc)
	e.Int(3, int64(m.PID))
	encTime(e, 4, m.StartTime)
	e.Bool(5, m.Terminal)
	e.Bool(6, m.StdinOnce)
	e.Msg(7, &m.Log)
	e.Uint(8, uint64(m.Slot))
	e.Bool(9, m.Gated)
	e.Bool(10, m.Adopted)
	e.Uint(11, m.PidfdInode)
	e.Uint(12, m.StartTicks)
	e.Uint(13, m.PipeInodes[0])
	e.Uint(14, m.PipeInodes[1])
	e.Uint(15, m.PipeInodes[2])
}

// Decode reads the message's fields.
func (m *Desc) Decode(d *Dec) {
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
			m.Terminal = d.Bool()
		case 6:
			m.StdinOnce = d.Bool()
		case 7:
			d.Msg(&m.Log)
		case 8:
			m.Slot = uint32(d.Uint())
		case 9:
			m.Gated = d.Bool()
		case 10:
			m.Adopted = d.Bool()
		case 11:
			m.PidfdInode = d.Uint()
		case 12:
			m.StartTicks = d.Uint()
		case 13, 14, 15:
			m.PipeInodes[d.Tag-13] = d.Uint()
		}
	}
}

// Roles of the descriptors beside a Held: one byte each in Held.Roles, in the descriptors' order.
const (
	RolePidfd  = 'p'
	RoleMaster = 'm' // the terminal's master: input and output
	RoleStdin  = 'i'
	RoleStdout = 'o'
	RoleStderr = 'e'
	RoleSlate  = 's'
	RoleAttach = 'a' // a new attachment's socket, the client's end
)

// Held is a process with its descriptors: insurance on its way out, adoption on its way back.
type Held struct {
	Desc  Desc
	Roles []byte
}

// Encode appends the message's fields.
func (m *Held) Encode(e *Enc) { e.Msg(1, &m.Desc); e.Bytes(2, m.Roles) }

// Decode reads the message's fields.
func (m *Held) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			d.Msg(&m.Desc)
		case 2:
			m.Roles = append([]byte(nil), d.Bytes()...)
		}
	}
}

// Attachment is one attachment as it must be known to whoever takes it over. Its descriptor is the
// keeper's end of the socket.
type Attachment struct {
	Number  uint32 // unique in the keeper's life, rising
	Request AttachRequest
	EOF     bool // the client's part of stdin has ended
	Matched int  // detach keys seen so far
}

// Encode appends the message's fields.
func (m *Attachment) Encode(e *Enc) {
	e.Uint(1, uint64(m.Number))
	e.Msg(2, &m.Request)
	e.Bool(3, m.EOF)
	e.Int(4, int64(m.Matched))
}

// Decode reads the message's fields.
func (m *Attachment) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			m.Number = uint32(d.Uint())
		case 2:
			d.Msg(&m.Request)
		case 3:
			m.EOF = d.Bool()
		case 4:
			m.Matched = int(d.Int())
		}
	}
}

// Launched is the reply to a launch: the descriptors beside it are those of Held.Roles, attachments
// (RoleAttach) among them.
type Launched struct {
	Started Started
	Held    Held
}

// Encode appends the message's fields.
func (m *Launched) Encode(e *Enc) { e.Msg(1, &m.Started); e.Msg(2, &m.Held) }

// Decode reads the message's fields.
func (m *Launched) Decode(d *Dec) {
	for d.Next() {
		switch d.Tag {
		case 1:
			d.Msg(&m.Started)
		case 2:
			d.Msg(&m.Held)
		}
	}
}

// States is a part of the reply to List.
type States struct{ Procs []ProcState }

// Encode appends the message's fields.
func (m *States) Encode(e *Enc) {
	for i := range m.Procs {
		e.Msg(1, &m.Procs[i])
	}
}

// Decode reads the message's fields.
func (m *States) Decode(d *Dec) {
	for d.Next() {
		if d.Tag == 1 {
			var p ProcState
			d.Msg(&p)
			m.Procs = append(m.Procs, p)
		}
	}
}

// Names is the reply to Parked.
type Names struct{ Names []string }

// Encode appends the message's fields.
func (m *Names) Encode(e *Enc) {
	for _, n := range m.Names {
		e.Str(1, n)
	}
}

// Decode reads the message's fields.
func (m *Names) Decode(d *Dec) {
	for d.Next() {
		if d.Tag == 1 {
			m.Names = append(m.Names, d.Str())
		}
	}
}
