package local

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"berth/base/fault"
)

type names map[string]string

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a, ok := n[host]; ok {
		var list []netip.Addr
		for one := range strings.SplitSeq(a, " ") {
			list = append(list, netip.MustParseAddr(one))
		}
		return list, nil
	}
	return nil, errors.New("lookup " + host + ": no such host")
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		given map[string]string
		text  string // of the error; "": none
	}{
		{nil, ""},
		{map[string]string{"foo": "bar"}, `invalid option: "foo"`},
		{map[string]string{"type": "nfs"}, `missing required option: "device"`},
		{map[string]string{"device": "/x"}, `missing required option: "type"`},
		{map[string]string{"o": "bind", "device": "/x"}, `missing required option: "type"`},
		{map[string]string{"o": "bind", "type": "none"}, `missing required option: "device"`},
		{map[string]string{"size": "abc"}, `invalid size: 'abc'`},
		{map[string]string{"size": "-1"}, `invalid size: '-1'`},
		{map[string]string{"size": "10m"}, ""},
		{map[string]string{"size": "10m", "type": "tmpfs", "device": "tmpfs"}, "a tmpfs takes o=size="},
		{map[string]string{"type": "cifs", "device": "//host:445/share"}, "port not allowed in CIFS device URL"},
		{map[string]string{"type": "tmpfs", "device": "x\x00"}, "zero byte"},
		{map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}, ""},
	} {
		_, err := parse(c.given)
		if c.text == "" && err != nil || c.text != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%v: %v; want %q", c.given, err, c.text)
		}
	}
}

func TestServersAreLookedUp(t *testing.T) {
	dns := names{"nas": "fd00::5 10.0.0.5", "six": "fd00::6"}
	for _, c := range []struct {
		o       options
		source  string
		options string
		err     string
	}{
		{options{fstype: "nfs", device: ":/x", words: "addr=nas,rw"}, ":/x", "addr=10.0.0.5,rw", ""},
		{options{fstype: "nfs4", device: ":/x", words: "rw,addr=six"}, ":/x", "rw,addr=fd00::6", ""},
		{options{fstype: "nfs", device: ":/x", words: "addr=10.1.2.3"}, ":/x", "addr=10.1.2.3", ""},
		{options{fstype: "nfs", device: ":/x", words: "addr=nobody"}, "", "", "error resolving passed in network volume address: lookup nobody: no such host"},
		{options{fstype: "cifs", device: "//nas/share/dir", words: "username=u"}, "//10.0.0.5/share/dir", "username=u", ""},
		{options{fstype: "cifs", device: "//nas/share", words: "addr=six"}, "//nas/share", "addr=fd00::6", ""},
		{options{fstype: "ext4", device: "/dev/x", words: "addr=nas"}, "/dev/x", "addr=nas", ""},
	} {
		m, err := c.o.mount(t.Context(), dns)
		if c.err != "" {
			if !fault.Is(err, fault.Unavailable) || err.Error() != c.err {
				t.Errorf("%+v: %v", c.o, err)
			}
			continue
		}
		if err != nil || m.Source != c.source || !slices.Equal(m.Options, strings.Split(c.options, ",")) {
			t.Errorf("%+v: %+v, %v", c.o, m, err)
		}
	}
}

func TestPasswordsAreNotShown(t *testing.T) {
	words := "username=u,password=s3cret,vers=3"
	if got := masked("mount //h/s: data: "+words+": refused", words); strings.Contains(got, "s3cret") || !strings.Contains(got, "password=********") {
		t.Error(got)
	}
}

func FuzzOptions(f *testing.F) {
	f.Add("nfs", ":/x", "addr=nas,rw", "")
	f.Add("cifs", "//h/s", "password=x", "")
	f.Add("", "", "", "10m")
	f.Fuzz(func(t *testing.T, fstype, device, words, size string) {
		given := map[string]string{"type": fstype, "device": device, "o": words}
		if size != "" {
			given["size"] = size
		}
		o, err := parse(given)
		if err != nil {
			return
		}
		m, err := o.mount(t.Context(), names{"nas": "10.0.0.5"})
		if err == nil && m.Type != fstype {
			t.Errorf("%+v became %+v", o, m)
		}
		masked(words, words)
	})
}
