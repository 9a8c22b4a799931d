package server

import (
	"reflect"
	"testing"
	"time"

	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

func sample() *snapshot {
	at := time.Unix(1700000000, 5)
	return &snapshot{
		Birth: 1, Started: at, Upgrades: 2, AttNumber: 3, Orphans: 4, LogFaults: 5, LogLost: 6, Lock: 7, Sock: 8, Slate: 9,
		Procs: []procSnap{{Desc: wire.Desc{ID: "a"}, Reaped: true, Finished: true, Exit: wire.Exit{ID: "a"}, Pidfd: 1, Stdin: 2, Out: 3, Err: 4, TTY: true,
			Pend: []byte("x"), Log: 5, LogFaults: 6, LogLost: 7, Failing: at, Lossy: true, Skip: [2]bool{true, false}, Stash: [2]bool{false, true}}},
		Atts:   []attSnap{{Att: wire.Attachment{Number: 1}, FD: 2, Ended: true, Shut: true, Pend: []byte("y"), From: 3}},
		Peers:  []peerSnap{{FD: 1, PID: 2, Name: "n", Hello: true, Insured: true, Upgrade: true, Seq: 3}},
		Parked: []parkSnap{{Name: "p", FD: 4}},
	}
}

func noZero(t *testing.T, v reflect.Value) {
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s.%s is not tested", v.Type(), v.Type().Field(i).Name)
		}
	}
}

// TestSnapshot fails also when a field is added and forgotten in its coding.
func TestSnapshot(t *testing.T) {
	m := sample()
	for _, v := range []any{*m, m.Procs[0], m.Atts[0], m.Peers[0], m.Parked[0]} {
		noZero(t, reflect.ValueOf(v))
	}
	e := wire.Enc{}
	m.Encode(&e)
	e.Str(200, "of a newer keeper")
	var again snapshot
	if err := wire.Unmarshal(e.B, &again); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m, &again) {
		t.Errorf("\n got %+v\nwant %+v", &again, m)
	}
	// No descriptor is not descriptor 0.
	var empty snapshot
	if err := wire.Unmarshal(nil, &empty); err != nil || empty.Lock != -1 {
		t.Errorf("%+v %v", empty, err)
	}
}

func FuzzState(f *testing.F) {
	e := wire.Enc{}
	sample().Encode(&e)
	f.Add(e.B)
	f.Fuzz(func(t *testing.T, b []byte) {
		fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
		if err != nil {
			t.Skip(err)
		}
		defer unix.Close(fd)
		unix.Write(fd, b)
		_ = CheckState(fd)
	})
}

func TestWaitStatus(t *testing.T) {
	for _, c := range []struct {
		code, status int32
		want         string
	}{
		{1, 3, "exit 3"}, {2, 9, "signal 9"}, {3, 11, "signal 11 core"},
	} {
		var info unix.Siginfo
		*sigchld(&info) = sigchldInfo{code: c.code, status: c.status}
		ws := unix.WaitStatus(waitStatus(&info))
		got := ""
		if ws.Exited() {
			got = "exit " + itoa(ws.ExitStatus())
		} else if ws.Signaled() {
			got = "signal " + itoa(int(ws.Signal()))
			if ws.CoreDump() {
				got += " core"
			}
		}
		if got != c.want {
			t.Errorf("%+v is %q", c, got)
		}
	}
}

func TestTimers(t *testing.T) {
	var ts timers
	var got string
	a := ts.after(time.Hour, func() { got += "a" })
	ts.after(0, func() { got += "b" })
	c := ts.after(0, func() { got += "c" })
	ts.stop(c)
	ts.stop(c)
	ts.stop(nil)
	for fn := ts.due(time.Now().Add(time.Second)); fn != nil; fn = ts.due(time.Now().Add(time.Second)) {
		fn()
	}
	if got != "b" || ts.timeout() < 3_000_000 {
		t.Errorf("%q, next in %d ms", got, ts.timeout())
	}
	ts.stop(a)
	if ts.timeout() != -1 {
		t.Error("nothing is to come")
	}
}

// TestClearLow: descriptors of an older keeper are moved, and what refers to them follows.
func TestClearLow(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	sock, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []uint64{inode(p[0]), inode(p[1]), inode(sock[0]), inode(sock[1])}
	low := append([]int{}, p[0], p[1], sock[0], sock[1])
	m := &snapshot{
		Procs: []procSnap{{Pidfd: -1, Stdin: p[1], Out: p[0], Err: -1, Log: -1, TTY: false}},
		Peers: []peerSnap{{FD: sock[0]}},
		Atts:  []attSnap{{FD: sock[1], From: sock[0]}, {FD: -1, From: -1}},
	}
	m.clearLow()
	got := []int{m.Procs[0].Out, m.Procs[0].Stdin, m.Peers[0].FD, m.Atts[0].FD}
	for i, fd := range got {
		if fd < HighFD || inode(fd) != want[i] {
			t.Errorf("descriptor %d is now %d", low[i], fd)
		}
		if inode(low[i]) == want[i] {
			t.Errorf("descriptor %d is still open", low[i])
		}
	}
	if m.Atts[0].From != m.Peers[0].FD || m.Atts[1].From != -1 || m.Procs[0].Pidfd != -1 {
		t.Errorf("%+v", m)
	}
	closeAll(got)
}

// TestOlderBinaries: a binary that knows no local logs takes the last field for a slate, which is none. It refuses a state with such logs, and
// takes any other.
func TestOlderBinaries(t *testing.T) {
	for format, refused := range map[string]bool{formatJSON: false, formatLocal: true} {
		m := snapshot{Lock: 3, Sock: 4, Slate: 5, Procs: []procSnap{{Desc: wire.Desc{ID: "a", Log: wire.LogConfig{Format: format}}, Log: 7}}}
		var e wire.Enc
		m.Encode(&e)
		slate := -1
		for d := wire.NewDec(e.B); d.Next(); {
			if d.Tag == slateTag {
				slate = decFD(d)
			}
		}
		if (slate < 0) != refused {
			t.Errorf("%s: an older binary finds slate %d", format, slate)
		}
		var got snapshot
		if err := wire.Unmarshal(e.B, &got); err != nil || got.Slate != 5 {
			t.Errorf("%s: this one finds slate %d, %v", format, got.Slate, err)
		}
	}
}
