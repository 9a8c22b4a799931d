package export

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// asking is a client that asks for file after file and reads none.
type asking struct {
	ctx   context.Context
	files uint32
	asked uint32
	known chan struct{} // closed when it has been told of all files
	send  func(*fstypes.Packet) error
}

func (a *asking) Context() context.Context { return a.ctx }

func (a *asking) RecvMsg(m any) error {
	select {
	case <-a.known:
	case <-a.ctx.Done():
		return a.ctx.Err()
	}
	if a.asked == a.files {
		<-a.ctx.Done()
		return a.ctx.Err()
	}
	*m.(*fstypes.Packet) = fstypes.Packet{Type: fstypes.PACKET_REQ, ID: a.asked + 1} // 0 is the directory
	a.asked++
	return nil
}

func (a *asking) SendMsg(m any) error {
	p := m.(*fstypes.Packet)
	if p.Type == fstypes.PACKET_STAT && p.Stat == nil {
		close(a.known)
	}
	return a.send(p)
}

// Whoever asks for many files and goes leaves nobody waiting.
func TestClientOfManyFilesIsLost(t *testing.T) {
	dir := t.TempDir()
	const files = 5 * outstanding
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, "d", strconv.Itoa(i)), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shown, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	gone := errors.New("the client is gone")
	for name, send := range map[string]func(ctx context.Context, stop context.CancelCauseFunc, p *fstypes.Packet) error{
		"it does not read, and the build is called off": func(ctx context.Context, stop context.CancelCauseFunc, p *fstypes.Packet) error {
			if p.Type != fstypes.PACKET_DATA {
				return nil
			}
			time.AfterFunc(50*time.Millisecond, func() { stop(gone) })
			<-ctx.Done()
			return ctx.Err()
		},
		"what is sent fails": func(ctx context.Context, stop context.CancelCauseFunc, p *fstypes.Packet) error {
			if p.Type != fstypes.PACKET_DATA {
				return nil
			}
			time.AfterFunc(50*time.Millisecond, func() { stop(gone) }) // then what is received does, too
			return io.EOF
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancelCause(t.Context())
			defer stop(nil)
			a := &asking{ctx: ctx, files: files, known: make(chan struct{}), send: func(p *fstypes.Packet) error { return send(ctx, stop, p) }}
			done := make(chan error, 1)
			go func() { done <- fsutil.Send(ctx, pace(a), shown, nil) }()
			select {
			case err := <-done:
				if err == nil {
					t.Error("nothing was sent, and it is no error")
				}
			case <-time.After(time.Minute):
				t.Fatal("the sender waits for ever")
			}
		})
	}
}

// Many more files than may be outstanding are sent to a client that reads them.
func TestManyFilesAreSent(t *testing.T) {
	dir := t.TempDir()
	const files = 3 * outstanding
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, "d", strconv.Itoa(i)), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shown, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ends, all := 0, make(chan struct{})
	a := &asking{ctx: ctx, files: files, known: make(chan struct{})}
	a.send = func(p *fstypes.Packet) error { // one at a time: the stream that fsutil makes of it has a lock
		if p.Type == fstypes.PACKET_DATA && len(p.Data) == 0 {
			if ends++; ends == files {
				close(all)
			}
		}
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- fsutil.Send(ctx, pace(a), shown, nil) }()
	select {
	case <-all:
	case <-time.After(time.Minute):
		t.Fatal("not all files were sent")
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
