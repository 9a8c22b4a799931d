package wire

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"berth/base/fault"
)

var at = time.Unix(1700000000, 123).UTC()

func messages() []Message {
	log := LogConfig{Format: "json-file", Path: "/x/y", MaxSize: -1, MaxFiles: 3, Attrs: []Attr{{"a", "b"}, {"", "c"}}, Keep: true, NonBlock: true, Announce: true}
	att := AttachRequest{ID: "i", Proc: "p", Stdin: true, Stdout: true, Stderr: true, Framed: true, DetachKeys: []byte{16, 17}, OwnSock: true}
	exit := Exit{ID: "i", Proc: "p", PID: 9, Code: 137, Signal: 9, Core: true, Unknown: true, At: at}
	desc := Desc{ID: "i", Proc: "p", PID: 9, StartTime: at, Terminal: true, StdinOnce: true, Log: log, Slot: 8, Gated: true, Adopted: true,
		PidfdInode: 1 << 40, StartTicks: 77, PipeInodes: [3]uint64{1, 2, 3}}
	return []Message{
		&Launch{ID: "i", Proc: "p", Program: []byte{0, 1}, Terminal: true, Rows: 24, Cols: 80, Stdin: true, StdinOnce: true, NoOutput: true, Log: log, Gate: true, Attach: []AttachRequest{att, {}}, Enters: []Entered{{ID: "i", PID: 9}, {}}},
		&Started{PID: 5, StartTime: at}, &exit, &att, &log, &desc,
		&ProcState{ID: "i", Proc: "p", PID: 1, StartTime: at, Running: true, Gated: true, Terminal: true, StdinOpen: true, Adopted: true, Exit: &exit, LogPath: "/l", LogFaults: 1, LogLost: 2, Attached: 3},
		&Info{Version: "v", Protocol: 1, PID: 2, Started: at, Upgrades: 3, Procs: 4, Running: 5, Parked: 6, Clients: 7, RSS: 8, OOMScoreAdj: -999, OOMError: "e", LogFaults: 9, LogLost: 10, Orphans: 11, Launching: 12},
		&Hello{MinVersion: 1, MaxVersion: 2, Name: "n", Insure: true, Version: 1, Keeper: "k", PID: 3, Birth: 1 << 63, Missing: 4},
		&Request{ID: "i", Proc: "p", Signal: 15, Rows: 1, Cols: 65535, Name: "n", Path: "/p", Attachment: 7},
		&Error{Kind: fault.Conflict, Text: "t", Step: "s", Call: "c", Errno: 2, Exec: true, Arg0: "a"},
		&Held{Desc: desc, Roles: []byte("pio")},
		&Attachment{Number: 7, Request: att, EOF: true, Matched: 1},
		&Launched{Started: Started{PID: 5, StartTime: at}, Held: Held{Desc: desc}},
		&States{Procs: []ProcState{{ID: "a"}, {ID: "b", Exit: &exit}}},
		&Names{Names: []string{"a", "b"}},
		&LogFile{ID: "i", Path: "/p", Inode: 1 << 40, Packed: "/q"},
	}
}

// TestRoundTrip fails also when a field is added to a message and forgotten in its coding: every
// field of the messages above is set.
func TestRoundTrip(t *testing.T) {
	for _, m := range messages() {
		v := reflect.ValueOf(m).Elem()
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if v.Field(i).IsZero() && name != "Sock" {
				t.Errorf("%T.%s is not tested", m, name)
			}
		}
		e := Enc{}
		m.Encode(&e)
		again := reflect.New(v.Type()).Interface().(Message)
		if err := Unmarshal(e.B, again); err != nil {
			t.Errorf("%T: %v", m, err)
		}
		if !reflect.DeepEqual(m, again) {
			t.Errorf("%T:\n got %+v\nwant %+v", m, again, m)
		}
		// A field of the future is skipped.
		e.Str(250, "what is this")
		if err := Unmarshal(e.B, reflect.New(v.Type()).Interface().(Message)); err != nil {
			t.Errorf("%T with an unknown field: %v", m, err)
		}
	}
}

func TestKinds(t *testing.T) {
	for k := fault.Internal; k <= fault.Gone; k++ {
		e := Enc{}
		(&Error{Kind: k}).Encode(&e)
		var m Error
		if err := Unmarshal(e.B, &m); err != nil || m.Kind != k {
			t.Errorf("%v arrives as %v (%v)", k, m.Kind, err)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	for i, m := range messages() {
		e := Enc{}
		m.Encode(&e)
		f.Add(byte(i), e.B)
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		all := messages()
		typ := reflect.TypeOf(all[int(kind)%len(all)]).Elem()
		m := reflect.New(typ).Interface().(Message)
		if Unmarshal(b, m) != nil {
			return
		}
		// What was understood can be said again and means the same.
		one, two := Enc{}, Enc{}
		m.Encode(&one)
		again := reflect.New(typ).Interface().(Message)
		if err := Unmarshal(one.B, again); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		again.Encode(&two)
		if !bytes.Equal(one.B, two.B) {
			t.Fatalf("%T: %x and %x", m, one.B, two.B)
		}
	})
}

func FuzzHead(f *testing.F) {
	f.Add(AppendHead(nil, Head{1, 2, 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := ParseHead(b)
		if err == nil && !bytes.Equal(append(AppendHead(nil, h), body...), b) {
			t.Fatal("not the same")
		}
	})
}
