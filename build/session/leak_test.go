package session

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// Frames of HTTP/2 (RFC 9113, section 4.1) that a session's client begins with, or should not.
const (
	noSettings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	goAway     = "\x00\x00\x08\x07\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00"
	largeFrame = "\xff\xff\xff\x00\x00\x00\x00\x00\x01"
)

// Clients that go away at any step, or say what is no protocol, leave nothing behind: no session, no goroutine, no descriptor.
func TestSessionsThatDie(t *testing.T) {
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("needs /proc")
		}
		return len(list)
	}
	m := NewManager(nil)
	defer m.Close()
	s := door(t, m)
	ask := func(id string) string {
		return "POST /session HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + headerID + ": " + id + "\r\n\r\n"
	}
	sessions := 0
	goroutines, fds := runtime.NumGoroutine(), descriptors()
	for range 10 {
		for name, say := range map[string]func(c net.Conn, id string){
			"nothing":         func(c net.Conn, id string) {},
			"half a request":  func(c net.Conn, id string) { io.WriteString(c, ask(id)[:60]) },
			"leaves at once":  func(c net.Conn, id string) { io.WriteString(c, ask(id)) },
			"an invalid name": func(c net.Conn, id string) { io.WriteString(c, ask("../"+id)); c.Read(make([]byte, 10)) },
			"silence":         func(c net.Conn, id string) { io.WriteString(c, ask(id)); c.Read(make([]byte, 10)) },
			"no HTTP/2": func(c net.Conn, id string) {
				io.WriteString(c, ask(id)+strings.Repeat("no", 1000))
				c.Read(make([]byte, 10))
			},
			"settings": func(c net.Conn, id string) { io.WriteString(c, ask(id)+noSettings); c.Read(make([]byte, 10)) },
			"an end":   func(c net.Conn, id string) { io.WriteString(c, ask(id)+noSettings+goAway); c.Read(make([]byte, 10)) },
			"a large frame": func(c net.Conn, id string) {
				io.WriteString(c, ask(id)+noSettings+largeFrame)
				c.Read(make([]byte, 10))
			},
			"asked, and gone": func(c net.Conn, id string) {
				io.WriteString(c, ask(id)+noSettings)
				asked := make(chan struct{})
				go func() {
					defer close(asked)
					if _, err := m.Secret(context.Background(), NewGroup(id), "pw"); err == nil {
						t.Error("it got a secret of nobody")
					}
				}()
				// The answer, the preface and settings of HTTP/2, then the question.
				b, all := make([]byte, 1000), ""
				for !strings.Contains(all, "\x01\x04\x00\x00\x00\x01") { // HEADERS, their end, stream 1
					n, err := c.Read(b)
					if err != nil {
						break
					}
					all += string(b[:n])
				}
				c.Close()
				<-asked
			},
		} {
			c, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(name, err)
			}
			sessions++
			say(c, fmt.Sprint("s", sessions))
			c.Close()
		}
	}
	// What is behind those connections ends by itself, whenever the machine comes to it.
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		now, open, there := runtime.NumGoroutine(), descriptors(), m.Sessions()
		if now <= goroutines && open <= fds && len(there) == 0 {
			return
		}
		if time.Now().After(end) {
			var b strings.Builder
			pprof.Lookup("goroutine").WriteTo(&b, 1)
			t.Fatalf("%d goroutines before, %d now; %d descriptors before, %d now; sessions %v\n%s", goroutines, now, fds, open, there, b.String())
		}
	}
}
