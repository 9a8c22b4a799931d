package local

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	units "github.com/docker/go-units"

	"berth/base/fault"
	"berth/kernel/mount"
)

// options are what a volume was made with.
type options struct {
	fstype, device, words string
	size                  uint64 // bytes; 0: no limit
}

// needs lists the options that an option does not go without.
var needs = [...]struct {
	option string
	others []string
}{
	{"device", []string{"type"}},
	{"type", []string{"device"}},
	{"o", []string{"device", "type"}},
}

// parse reads the options of a volume, in Docker's words where they are wrong.
func parse(given map[string]string) (options, error) {
	var o options
	for key, value := range given {
		switch key {
		case "type":
			o.fstype = value
		case "o":
			o.words = value
		case "device":
			o.device = value
		case "size":
			n, err := units.RAMInBytes(value)
			if err != nil || n < 0 {
				return o, fault.New(fault.Invalid, "invalid size: '%s'", value)
			}
			o.size = uint64(n)
		default:
			return o, fault.New(fault.Invalid, "invalid option: %q", key)
		}
	}
	for _, n := range needs {
		if _, ok := given[n.option]; !ok {
			continue
		}
		for _, other := range n.others {
			if _, ok := given[other]; !ok {
				return o, fault.New(fault.Invalid, "missing required option: %q", other)
			}
		}
	}
	if strings.ContainsRune(o.fstype+o.words+o.device, 0) {
		return o, fault.New(fault.Invalid, "an option has a zero byte")
	}
	if o.fstype == "cifs" && o.device != "" {
		u, err := url.Parse(o.device)
		if err != nil {
			return o, fault.Wrap(fault.Invalid, err, "error parsing mount device url")
		}
		if u.Port() != "" {
			return o, fault.New(fault.Invalid, "port not allowed in CIFS device URL, include 'port' in 'o='")
		}
	}
	if o.size > 0 && o.mounts() {
		return o, fault.New(fault.Invalid, "size limits a volume's own directory and cannot be had together with a device; a tmpfs takes o=size=…")
	}
	return o, nil
}

// mounts reports whether the volume is something that is mounted.
func (o *options) mounts() bool { return o.fstype != "" || o.device != "" }

// resolver looks up addresses: net.Resolver is one.
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// mount gives what is to be mounted, a server's name replaced by an address, since the kernel resolves none.
func (o *options) mount(ctx context.Context, names resolver) (mount.Mount, error) {
	m := mount.Mount{Source: o.device, Type: o.fstype}
	words := o.words
	if o.fstype == "nfs" || o.fstype == "nfs4" || o.fstype == "cifs" {
		addr := word(words, "addr")
		switch {
		case addr != "" && net.ParseIP(addr).To4() == nil:
			ip, err := lookup(ctx, names, addr)
			if err != nil {
				return m, err
			}
			words = strings.Replace(words, "addr="+addr, "addr="+ip, 1)
		case addr == "" && o.fstype == "cifs":
			device, err := resolveDevice(ctx, names, o.device)
			if err != nil {
				return m, err
			}
			m.Source = device
		}
	}
	if words != "" {
		m.Options = strings.Split(words, ",")
	}
	return m, nil
}

// resolveDevice replaces the host of //host/share by its address.
func resolveDevice(ctx context.Context, names resolver, device string) (string, error) {
	rest, ok := strings.CutPrefix(device, "//")
	if !ok {
		return device, nil
	}
	host, share, _ := strings.Cut(rest, "/")
	if host == "" || net.ParseIP(host) != nil {
		return device, nil
	}
	ip, err := lookup(ctx, names, host)
	if err != nil {
		return "", err
	}
	return "//" + ip + "/" + share, nil
}

func lookup(ctx context.Context, names resolver, host string) (string, error) {
	if ip := net.ParseIP(strings.Trim(host, "[]")); ip != nil {
		return ip.String(), nil
	}
	found, err := names.LookupNetIP(ctx, "ip", host)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("lookup %s: no address", host)
	}
	if err != nil {
		kind := fault.Unavailable
		if ctx.Err() != nil {
			kind = fault.KindOf(ctx.Err())
		}
		return "", fault.Wrap(kind, err, "error resolving passed in network volume address")
	}
	// IPv4 first, as the C library's and Docker's resolvers have it.
	for _, a := range found {
		if a.Unmap().Is4() {
			return a.Unmap().String(), nil
		}
	}
	return found[0].String(), nil
}

// word gives the value of one option word.
func word(words, key string) string {
	for w := range strings.SplitSeq(words, ",") {
		if k, v, ok := strings.Cut(w, "="); ok && k == key {
			return v
		}
	}
	return ""
}

// masked hides a password in what is shown.
func masked(text, words string) string {
	for _, key := range [...]string{"password", "pass", "password2"} {
		if p := word(words, key); p != "" {
			text = strings.ReplaceAll(text, key+"="+p, key+"=********")
		}
	}
	return text
}
