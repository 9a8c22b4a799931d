package sock

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Owner is a program that has a port.
type Owner struct {
	PID  int
	Name string // as the kernel knows it, at most 15 bytes
}

// OwnerOf finds the program of this network namespace that has the port, or one on all addresses that stands in its way.
// It reads every process's descriptors, some milliseconds: for an error's text. False when there is none to be seen.
func OwnerOf(proto string, at netip.AddrPort) (Owner, bool) {
	inodes := map[string]bool{}
	for _, table := range []string{proto, proto + "6"} {
		f, err := os.Open("/proc/thread-self/net/" + table)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if inode, ok := Entry(lines.Text(), proto, at); ok {
				inodes["socket:["+inode+"]"] = true
			}
		}
		f.Close()
	}
	if len(inodes) == 0 {
		return Owner{}, false
	}
	return search(inodes)
}

// Entry reads a line of /proc/net/tcp or udp (proc(5)) and gives its inode when the socket stands in the way of at.
func Entry(line, proto string, at netip.AddrPort) (inode string, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return "", false
	}
	if proto == "tcp" && f[3] != "0A" && f[3] != "07" { // listening, or bound and nothing else
		return "", false
	}
	ip, port, ok := strings.Cut(f[1], ":")
	if !ok {
		return "", false
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil || uint16(n) != at.Port() {
		return "", false
	}
	raw, err := hex.DecodeString(ip)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return "", false
	}
	for i := 0; i < len(raw); i += 4 { // words in the machine's order
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	a, _ := netip.AddrFromSlice(raw)
	a = a.Unmap()
	if a != at.Addr() && !a.IsUnspecified() && !at.Addr().IsUnspecified() {
		return "", false
	}
	return f[9], true
}

// search looks for the process that has one of the sockets open.
func search(inodes map[string]bool) (Owner, bool) {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return Owner{}, false
	}
	for _, p := range all {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		dir := "/proc/" + p.Name() + "/fd"
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			to, err := os.Readlink(dir + "/" + fd.Name())
			if err != nil || !inodes[to] {
				continue
			}
			comm, _ := os.ReadFile("/proc/" + p.Name() + "/comm")
			return Owner{pid, strings.TrimSpace(string(comm))}, true
		}
	}
	return Owner{}, false
}
