package port

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"berth/kernel/sock"
)

// bound makes the socket that holds a port.
func (t *Table) bound(k Key) (*os.File, error) {
	f, err := sock.Hold(k.Proto, netip.AddrPortFrom(k.IP, k.Port))
	if err != nil || !t.Listens || k.Proto != "tcp" {
		return f, err
	}
	c, err := f.SyscallConn()
	if err == nil {
		err = c.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 1) })
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func isTaken(err error) bool     { return errors.Is(err, syscall.EADDRINUSE) }
func isNoAddress(err error) bool { return errors.Is(err, syscall.EADDRNOTAVAIL) }

func isAbsent(err error) bool {
	return errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.ESOCKTNOSUPPORT) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// program says which program of the host has a port; "" when that cannot be seen.
func program(k Key) string {
	o, ok := sock.OwnerOf(k.Proto, netip.AddrPortFrom(k.IP, k.Port))
	if !ok {
		return ""
	}
	return fmt.Sprintf("by process %d, %s", o.PID, o.Name)
}
