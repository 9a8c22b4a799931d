package rootless

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// PortTaken gives a question of the inner engine's about TCP ports of the host: whether a program listens there. nil for the machine's
// engine. The host's network is that of the process that started us, and /proc shows everyone what listens in it.
func PortTaken() func(port uint16) bool {
	if !Inside() {
		return nil
	}
	dir := "/proc/" + strconv.Itoa(os.Getppid()) + "/net/"
	return func(port uint16) bool {
		for _, file := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile(dir + file)
			if err == nil && listens(string(text), port) {
				return true
			}
		}
		return false
	}
}

// listens reads /proc/net/tcp or tcp6, see proc(5): whether a socket listens on a port, at whatever address.
func listens(text string, port uint16) bool {
	const listening = "0A"
	suffix := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 3 && f[3] == listening && strings.HasSuffix(f[1], suffix) {
			return true
		}
	}
	return false
}
