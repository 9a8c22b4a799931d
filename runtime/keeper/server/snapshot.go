package server

import (
	"time"

	"berth/runtime/keeper/wire"
)

// snapshot is the keeper's state on its way through execve. It is encoded as messages are: fields
// may be added, unknown ones are skipped, so that a newer keeper's state can be read by an older
// one that it is replaced with.
type snapshot struct {
	Birth              uint64
	Started            time.Time
	Upgrades           int
	AttNumber          uint32
	Orphans            uint64
	LogFaults, LogLost uint64
	Lock, Sock, Slate  int // descriptors

	Procs  []procSnap
	Atts   []attSnap
	Peers  []peerSnap
	Parked []parkSnap
}

type procSnap struct {
	Desc                   wire.Desc
	Reaped, Finished       bool
	Exit                   wire.Exit
	Pidfd, Stdin, Out, Err int // descriptors, -1: none
	TTY                    bool
	Pend                   []byte
	Log                    int
	LogFaults, LogLost     uint64
	Failing                time.Time
	Lossy                  bool
	Skip, Stash            [2]bool
}

type attSnap struct {
	Att         wire.Attachment
	FD          int
	Ended, Shut bool
	Pend        []byte
	From        int // the peer's descriptor
}

type peerSnap struct {
	FD, PID        int
	Name           string
	Hello, Insured bool
	Upgrade        bool // it asked for the upgrade and waits for the answer to Seq
	Seq            uint32
}

type parkSnap struct {
	Name string
	FD   int
}

// Descriptors are written as number + 1, so that none is no field.
func encFD(e *wire.Enc, tag byte, fd int) { e.Uint(tag, uint64(fd+1)) }
func decFD(d *wire.Dec) int               { return int(d.Uint()) - 1 }

func encTime(e *wire.Enc, tag byte, t time.Time) {
	if !t.IsZero() {
		e.Int(tag, t.UnixNano())
	}
}

func encPair(e *wire.Enc, tag byte, p [2]bool) {
	n := uint64(0)
	if p[0] {
		n |= 1
	}
	if p[1] {
		n |= 2
	}
	e.Uint(tag, n)
}

func decPair(d *wire.Dec) [2]bool {
	n := d.Uint()
	return [2]bool{n&1 != 0, n&2 != 0}
}

// Encode appends the message's fields.
func (m *snapshot) Encode(e *wire.Enc) {
	e.Uint(1, m.Birth)
	encTime(e, 2, m.Started)
	e.Int(3, int64(m.Upgrades))
	e.Uint(4, uint64(m.AttNumber))
	e.Uint(5, m.Orphans)
	e.Uint(6, m.LogFaults)
	e.Uint(7, m.LogLost)
	encFD(e, 8, m.Lock)
	encFD(e, 9, m.Sock)
	encFD(e, slateTag, m.Slate)
	for i := range m.Procs {
		e.Msg(11, &m.Procs[i])
	}
	for i := range m.Atts {
		e.Msg(12, &m.Atts[i])
	}
	for i := range m.Peers {
		e.Msg(13, &m.Peers[i])
	}
	for i := range m.Parked {
		e.Msg(14, &m.Parked[i])
	}
	if m.newer() {
		e.B = append(e.B, slateTag, 1, 0) // no slate, says the last field to a binary that takes the last
	}
}

const slateTag = 10

// newer reports whether there is something that binaries before it would do wrongly: to write JSON into a log of the local format. They
// refuse a state whose slate is missing, and the keeper goes on as it is.
func (m *snapshot) newer() bool {
	for i := range m.Procs {
		if p := &m.Procs[i]; p.Log >= 0 && p.Desc.Log.Format != formatJSON {
			return true
		}
	}
	return false
}

// Decode reads the message's fields.
func (m *snapshot) Decode(d *wire.Dec) {
	m.Lock, m.Sock, m.Slate = -1, -1, -1
	for d.Next() {
		switch d.Tag {
		case 1:
			m.Birth = d.Uint()
		case 2:
			m.Started = time.Unix(0, d.Int())
		case 3:
			m.Upgrades = int(d.Int())
		case 4:
			m.AttNumber = uint32(d.Uint())
		case 5:
			m.Orphans = d.Uint()
		case 6:
			m.LogFaults = d.Uint()
		case 7:
			m.LogLost = d.Uint()
		case 8:
			m.Lock = decFD(d)
		case 9:
			m.Sock = decFD(d)
		case slateTag:
			if m.Slate < 0 { // the first counts, see newer
				m.Slate = decFD(d)
			}
		case 11:
			var x procSnap
			d.Msg(&x)
			m.Procs = append(m.Procs, x)
		case 12:
			var x attSnap
			d.Msg(&x)
			m.Atts = append(m.Atts, x)
		case 13:
			var x peerSnap
			d.Msg(&x)
			m.Peers = append(m.Peers, x)
		case 14:
			var x parkSnap
			d.Msg(&x)
			m.Parked = append(m.Parked, x)
		}
	}
}

// Encode appends the message's fields.
func (m *procSnap) Encode(e *wire.Enc) {
	e.Msg(1, &m.Desc)
	e.Bool(2, m.Reaped)
	e.Bool(3, m.Finished)
	e.Msg(4, &m.Exit)
	encFD(e, 5, m.Pidfd)
	encFD(e, 6, m.Stdin)
	encFD(e, 7, m.Out)
	encFD(e, 8, m.Err)
	e.Bool(9, m.TTY)
	e.Bytes(10, m.Pend)
	encFD(e, 11, m.Log)
	e.Uint(12, m.LogFaults)
	e.Uint(13, m.LogLost)
	encTime(e, 14, m.Failing)
	e.Bool(15, m.Lossy)
	encPair(e, 16, m.Skip)
	encPair(e, 17, m.Stash)
}

// Decode reads the message's fields.
func (m *procSnap) Decode(d *wire.Dec) {
	m.Pidfd, m.Stdin, m.Out, m.Err, m.Log = -1, -1, -1, -1, -1
	for d.Next() {
		switch d.Tag {
		case 1:
			d.Msg(&m.Desc)
		case 2:
			m.Reaped = d.Bool()
		case 3:
			m.Finished = d.Bool()
		case 4:
			d.Msg(&m.Exit)
		case 5:
			m.Pidfd = decFD(d)
		case 6:
			m.Stdin = decFD(d)
		case 7:
			m.Out = decFD(d)
		case 8:
			m.Err = decFD(d)
		case 9:
			m.TTY = d.Bool()
		case 10:
			m.Pend = append([]byte(nil), d.Bytes()...)
		case 11:
			m.Log = decFD(d)
		case 12:
			m.LogFaults = d.Uint()
		case 13:
			m.LogLost = d.Uint()
		case 14:
			m.Failing = time.Unix(0, d.Int())
		case 15:
			m.Lossy = d.Bool()
		case 16:
			m.Skip = decPair(d)
		case 17:
			m.Stash = decPair(d)
		}
	}
}

// Encode appends the message's fields.
func (m *attSnap) Encode(e *wire.Enc) {
	e.Msg(1, &m.Att)
	encFD(e, 2, m.FD)
	e.Bool(3, m.Ended)
	e.Bool(4, m.Shut)
	e.Bytes(5, m.Pend)
	encFD(e, 6, m.From)
}

// Decode reads the message's fields.
func (m *attSnap) Decode(d *wire.Dec) {
	m.FD, m.From = -1, -1
	for d.Next() {
		switch d.Tag {
		case 1:
			d.Msg(&m.Att)
		case 2:
			m.FD = decFD(d)
		case 3:
			m.Ended = d.Bool()
		case 4:
			m.Shut = d.Bool()
		case 5:
			m.Pend = append([]byte(nil), d.Bytes()...)
		case 6:
			m.From = decFD(d)
		}
	}
}

// Encode appends the message's fields.
func (m *peerSnap) Encode(e *wire.Enc) {
	encFD(e, 1, m.FD)
	e.Int(2, int64(m.PID))
	e.Str(3, m.Name)
	e.Bool(4, m.Hello)
	e.Bool(5, m.Insured)
	e.Bool(6, m.Upgrade)
	e.Uint(7, uint64(m.Seq))
}

// Decode reads the message's fields.
func (m *peerSnap) Decode(d *wire.Dec) {
	m.FD = -1
	for d.Next() {
		switch d.Tag {
		case 1:
			m.FD = decFD(d)
		case 2:
			m.PID = int(d.Int())
		case 3:
			m.Name = d.Str()
		case 4:
			m.Hello = d.Bool()
		case 5:
			m.Insured = d.Bool()
		case 6:
			m.Upgrade = d.Bool()
		case 7:
			m.Seq = uint32(d.Uint())
		}
	}
}

// Encode appends the message's fields.
func (m *parkSnap) Encode(e *wire.Enc) { e.Str(1, m.Name); encFD(e, 2, m.FD) }

// Decode reads the message's fields.
func (m *parkSnap) Decode(d *wire.Dec) {
	m.FD = -1
	for d.Next() {
		switch d.Tag {
		case 1:
			m.Name = d.Str()
		case 2:
			m.FD = decFD(d)
		}
	}
}
