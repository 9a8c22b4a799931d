package logplugin

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"berth/engine/logs/sink"
	"berth/runtime/keeper/localfile"
)

// fake is a plugin that reads its FIFOs.
type fake struct {
	t     *testing.T
	fail  string
	got   chan localfile.Entry
	calls []string
}

func (f *fake) Call(_ context.Context, method string, args, ret any) error {
	b, err := json.Marshal(args)
	if err != nil {
		return err
	}
	var a struct {
		File string
		Info struct {
			ContainerID, ContainerName string
			Config                     map[string]string
		}
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return err
	}
	f.calls = append(f.calls, method)
	if f.fail != "" {
		return json.Unmarshal([]byte(`{"Err":"`+f.fail+`"}`), ret)
	}
	if method == Subsystem+".StartLogging" {
		if a.Info.ContainerID != "0123456789abcdef" || a.Info.ContainerName != "/web" || a.Info.Config["own"] != "option" {
			f.t.Errorf("%s", b)
		}
		fifo, err := os.OpenFile(a.File, os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		go f.read(fifo)
	}
	return nil
}

func (f *fake) read(fifo *os.File) {
	defer fifo.Close()
	for {
		var size [4]byte
		if _, err := io.ReadFull(fifo, size[:]); err != nil {
			close(f.got)
			return
		}
		b := make([]byte, binary.BigEndian.Uint32(size[:]))
		var e localfile.Entry
		if _, err := io.ReadFull(fifo, b); err != nil {
			f.t.Error(err)
		}
		if err := e.Decode(b); err != nil {
			f.t.Error(err)
		}
		f.got <- e
	}
}

func newDriver(t *testing.T, f *fake) *Driver {
	i := &sink.Info{ContainerID: "0123456789abcdef", ContainerName: "/web", Config: map[string]string{"own": "option"}}
	return New(func(context.Context) (Caller, error) { return f, nil }, i, filepath.Join(t.TempDir(), "logging", "x"))
}

func TestPlugin(t *testing.T) {
	f := &fake{t: t, got: make(chan localfile.Entry, 10)}
	d := newDriver(t, f)
	if err := d.Probe(context.Background()); err != nil {
		t.Fatal(err)
	}
	n := 0
	at := time.Unix(5, 6)
	records := []sink.Record{{Time: at, Line: []byte("one")}, {Time: at, Line: []byte("two"), Stderr: true, Part: localfile.Partial{ID: "p", Ordinal: 3, Last: true}}}
	if err := d.Send(context.Background(), records, func(i int) { n = i }); err != nil || n != 2 {
		t.Fatal(err, n)
	}
	if e := <-f.got; string(e.Line) != "one" || e.Source != "stdout" || e.Time != at.UnixNano() || e.Partial.Ordinal != 0 {
		t.Errorf("%+v", e)
	}
	if e := <-f.got; string(e.Line) != "two" || e.Source != "stderr" || e.Partial != records[1].Part {
		t.Errorf("%+v", e)
	}
	d.Close()
	if _, more := <-f.got; more {
		t.Error("more")
	}
	if len(f.calls) != 2 || f.calls[1] != "LogDriver.StopLogging" {
		t.Errorf("%q", f.calls)
	}
	if _, err := os.Stat(d.path); !os.IsNotExist(err) {
		t.Error("the FIFO is left")
	}
}

func TestRefused(t *testing.T) {
	d := newDriver(t, &fake{t: t, fail: "no room"})
	if err := d.Send(context.Background(), []sink.Record{{}}, nil); err == nil || err.Error() != "no room" {
		t.Error(err)
	}
	d = New(func(context.Context) (Caller, error) { return nil, errors.New("gone") }, &sink.Info{}, "")
	if err := d.Send(context.Background(), nil, nil); err == nil || err.Error() != "gone" {
		t.Error(err)
	}
}
