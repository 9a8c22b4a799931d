// Command peer is a server for containers of test scripts: it tells each client how it sees him.
//
//	peer [NAME] [tcp:PORT | udp:PORT]...   without ports tcp:80 and udp:90
//
// The answer is one line, "NAME sees ADDRESS:PORT at ADDRESS:PORT", NAME being the host's name by default. A client over TCP that sends
// "stay" gets every further line back until it closes. Every port is served over v4 and v6, where the kernel has both.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
)

func main() {
	name, _ := os.Hostname() // "" is told as such
	args := os.Args[1:]
	if len(args) > 0 && !strings.Contains(args[0], ":") {
		name, args = args[0], args[1:]
	}
	if len(args) == 0 {
		args = []string{"tcp:80", "udp:90"}
	}
	var all []func()
	for _, a := range args {
		proto, port, _ := strings.Cut(a, ":")
		answer, err := serve(name, proto, port)
		if err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(1)
		}
		all = append(all, answer)
	}
	for _, answer := range all { // none answers before all listen
		go answer()
	}
	fmt.Println("ready")
	select {}
}

// serve listens on a port. What it gives answers there.
func serve(name, proto, port string) (func(), error) {
	if proto == "udp" {
		return serveDatagrams(name, port)
	}
	l, err := net.Listen(proto, ":"+port)
	if err != nil {
		return nil, err
	}
	return func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(name, c)
		}
	}, nil
}

// sees is the answer to one client.
func sees(name string, client, here net.Addr) string {
	return fmt.Sprintf("%s sees %v at %v\n", name, client, here)
}

func answer(name string, c net.Conn) {
	defer c.Close()
	lines := bufio.NewReader(c)
	said, err := lines.ReadString('\n')
	if err != nil {
		return
	}
	fmt.Fprint(c, sees(name, c.RemoteAddr(), c.LocalAddr()))
	for strings.TrimSpace(said) == "stay" {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		fmt.Fprint(c, name, " ", line)
	}
}

func serveDatagrams(name, port string) (func(), error) {
	c, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return nil, err
	}
	return func() {
		buf := make([]byte, 1500)
		for {
			_, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(sees(name, from, c.LocalAddr())), from) // lost datagrams are the client's to notice
		}
	}, nil
}
