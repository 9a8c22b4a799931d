package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Move moves the device into the network namespace of a descriptor, under a new name (which may hold %d
// for a number that the kernel picks; "" keeps the old one), gives it back its permanent global
// addresses, which it loses on the way, and sets it up.
func Move(device, newName string, namespace int) error {
	if newName == "" {
		newName = device
	}
	err := move(device, newName, namespace)
	switch {
	case errors.Is(err, unix.ENODEV):
		return fault.Wrap(fault.NotFound, err, "network device %s", device)
	case errors.Is(err, unix.EEXIST):
		return fault.Wrap(fault.Conflict, err, "network device %s: the container has a device %s already", device, newName)
	}
	return fault.Wrap(fault.Internal, err, "move network device %s", device)
}

func move(device, newName string, namespace int) error {
	here, err := newSocket()
	if err != nil {
		return err
	}
	defer here.close()
	index, err := here.find(device)
	if err != nil {
		return err
	}
	addresses, err := here.addresses(index)
	if err != nil {
		return fmt.Errorf("list its addresses: %w", err)
	}
	there, err := socketIn(namespace)
	if err != nil {
		return err
	}
	defer there.close()
	before, err := there.links()
	if err != nil {
		return err
	}
	if !strings.Contains(newName, "%d") {
		if _, taken := before[newName]; taken { // the kernel would pick another name on a move
			return unix.EEXIST
		}
	}
	body := attribute(linkBody(index, 0, 0), unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(namespace)))
	body = attribute(body, unix.IFLA_IFNAME, append([]byte(newName), 0))
	if err := here.ask(unix.RTM_NEWLINK, unix.NLM_F_ACK, body, nil); err != nil {
		return err
	}
	after, err := there.links()
	if err != nil {
		return err
	}
	for name, i := range after {
		if _, was := before[name]; !was {
			return there.arrive(i, addresses)
		}
	}
	return errors.New("it did not arrive")
}

// arrive gives a device its addresses and sets it up.
func (s *socket) arrive(index int32, addresses [][]byte) error {
	for _, a := range addresses {
		binary.NativeEndian.PutUint32(a[4:], uint32(index))
		if err := s.ask(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE, a, nil); err != nil && err != unix.EEXIST {
			return fmt.Errorf("give it back an address: %w", err)
		}
	}
	if err := s.ask(unix.RTM_NEWLINK, unix.NLM_F_ACK, linkBody(index, unix.IFF_UP, unix.IFF_UP), nil); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}

// linkBody is struct ifinfomsg.
func linkBody(index int32, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// find gives a device's index.
func (s *socket) find(name string) (int32, error) {
	links, err := s.links()
	if err != nil {
		return 0, err
	}
	index, ok := links[name]
	if !ok {
		return 0, unix.ENODEV
	}
	return index, nil
}

// links gives all devices' indexes by name.
func (s *socket) links() (map[string]int32, error) {
	all := map[string]int32{}
	err := s.ask(unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfInfomsg), func(kind uint16, body []byte) {
		if kind != unix.RTM_NEWLINK || len(body) < unix.SizeofIfInfomsg {
			return
		}
		index := int32(binary.NativeEndian.Uint32(body[4:]))
		attributes(body[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) {
			if kind == unix.IFLA_IFNAME {
				all[unix.ByteSliceToString(value)] = index
			}
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	return all, nil
}

// addresses gives a device's addresses of global scope that do not expire, as bodies of RTM_NEWADDR.
func (s *socket) addresses(index int32) ([][]byte, error) {
	var all [][]byte
	err := s.ask(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg), func(kind uint16, body []byte) {
		// struct ifaddrmsg: family, prefix length, flags, scope: a byte each; index: four
		if kind != unix.RTM_NEWADDR || len(body) < unix.SizeofIfAddrmsg || int32(binary.NativeEndian.Uint32(body[4:])) != index {
			return
		}
		if body[2]&unix.IFA_F_PERMANENT == 0 || body[3] != unix.RT_SCOPE_UNIVERSE {
			return
		}
		a := append([]byte(nil), body[:unix.SizeofIfAddrmsg]...)
		a[2] = 0
		attributes(body[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
			switch kind {
			case unix.IFA_LOCAL, unix.IFA_ADDRESS, unix.IFA_BROADCAST, unix.IFA_ANYCAST, unix.IFA_RT_PRIORITY:
				a = attribute(a, kind, value)
			}
		})
		// No duplicate address detection: the address was in use a moment ago, by the same device.
		if a[0] == unix.AF_INET6 {
			a[2] = unix.IFA_F_NODAD
		}
		all = append(all, a)
	})
	return all, err
}

// socketIn makes a netlink socket in another network namespace.
func socketIn(namespace int) (*socket, error) {
	runtime.LockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("open our own network namespace: %w", err)
	}
	defer unix.Close(own)
	if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter the container's network namespace: %w", err)
	}
	s, err := newSocket()
	if back := unix.Setns(own, unix.CLONE_NEWNET); back != nil {
		return nil, fmt.Errorf("return to our own network namespace: %w", back) // the thread stays locked, and dies with its goroutine
	}
	runtime.UnlockOSThread()
	return s, err
}
