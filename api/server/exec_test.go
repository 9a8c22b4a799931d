package server

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"berth/engine/container"
)

// An exec with a terminal that is started without Tty has its output in frames, and one with it has not.
func TestExecTerminalInFrames(t *testing.T) {
	f := newFake()
	d := newDuplex()
	f.process, f.tty, f.execSpec = d, true, container.ExecSpec{Cmd: []string{"sh"}, TTY: true, AttachStdout: true}
	_, web, _ := serve(t, f)
	_, r, head := dial(t, web.URL, execRequest(`{"Detach":false}`))
	if !strings.Contains(head, "Content-Type: application/vnd.docker.multiplexed-stream\r\n") {
		t.Errorf("%q", head)
	}
	go func() {
		for _, said := range []string{"57 123\r\n", strings.Repeat("x", 100<<10)} {
			_, _ = io.WriteString(d.out, said)
		}
		d.out.Close()
	}()
	var stdout []byte
	for {
		head := make([]byte, 8)
		if _, err := io.ReadFull(r, head); err == io.EOF {
			break
		} else if err != nil || !bytes.Equal(head[:4], []byte{1, 0, 0, 0}) {
			t.Fatalf("%v after %d bytes: %v", head, len(stdout), err)
		}
		piece := make([]byte, binary.BigEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(r, piece); err != nil {
			t.Fatal(err)
		}
		stdout = append(stdout, piece...)
	}
	if string(stdout) != "57 123\r\n"+strings.Repeat("x", 100<<10) {
		t.Errorf("%d bytes: %.20q", len(stdout), stdout)
	}
}
