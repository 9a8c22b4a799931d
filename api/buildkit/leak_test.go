package buildkit_test

import (
	"io"
	"net"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"berth/api/buildkit"
)

// Connections that end at any step of HTTP/2, or are none, leave nothing behind.
func TestConnectionsThatDie(t *testing.T) {
	const (
		preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
		none    = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"     // settings
		half    = "\x00\x10\x00\x01\x04\x00\x00\x00\x01half" // headers of 4,096 bytes, RFC 9113, section 6.2
		large   = "\xff\xff\xff\x00\x00\x00\x00\x00\x01"
		ping    = "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"
	)
	door := buildkit.New(buildkit.Config{})
	defer door.Close()
	served := make(chan struct{}, 1000)
	die := func(say string) {
		here, there := net.Pipe()
		go func() {
			_ = door.ServeConn(t.Context(), there)
			served <- struct{}{}
		}()
		read := make(chan struct{})
		go func() {
			defer close(read)
			io.Copy(io.Discard, here)
		}()
		io.WriteString(here, say) // it may not want to hear everything
		here.Close()
		<-read
		<-served
	}
	die("") // the first one starts the server
	before := runtime.NumGoroutine()
	for range 20 {
		for _, say := range []string{"", "GET / HTTP/1.1\r\n\r\n", preface[:10], preface, preface + none, preface + none + half, preface + large, preface + none + strings.Repeat(ping, 50)} {
			die(say)
		}
	}
	// What gRPC keeps for a connection ends by itself, whenever the machine comes to it.
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			var b strings.Builder
			pprof.Lookup("goroutine").WriteTo(&b, 1)
			t.Fatalf("%d goroutines before, %d now\n%s", before, runtime.NumGoroutine(), b.String())
		}
	}
}
