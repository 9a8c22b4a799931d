package script

import (
	"bufio"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"
)

// collectMain is the program `collect SOCKET FILE`: a syslog daemon on a unix socket that appends the text of each message to FILE. It makes
// SOCKET.up once it listens, and ends when SOCKET.down is there.
func collectMain() {
	socket, file := os.Args[1], os.Args[2]
	os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		fail("collect: %v", err)
	}
	out, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fail("collect: %v", err)
	}
	if err := os.WriteFile(socket+".up", nil, 0o600); err != nil {
		fail("collect: %v", err)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt) // by which a script that fails ends it, also where whoever runs the tests ignores it
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				for r := bufio.NewReader(conn); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					_, text, _ := strings.Cut(line, "]: ")
					out.WriteString(text)
				}
			}()
		}
	}()
	for {
		if _, err := os.Stat(socket + ".down"); err == nil {
			return
		}
		select {
		case <-ended:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}
