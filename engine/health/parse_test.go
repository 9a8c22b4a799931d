package health

import (
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		test []string
		want string // the probe as text; "" none
		kind Kind
		err  string
	}{
		{test: nil},
		{test: []string{"NONE"}},
		{test: []string{"WAT", "x"}},
		{test: []string{"CMD", "a", "b c"}, want: "a b c", kind: Command},
		{test: []string{"CMD-SHELL", "a && b"}, want: "/bin/sh -c a && b", kind: Command},
		{test: []string{"CMD-SHELL", "curl http://localhost:80/"}, want: "/bin/sh -c curl http://localhost:80/", kind: Command},
		{test: []string{"CMD", "http:80/", "x"}, want: "http:80/ x", kind: Command},
		{test: []string{"CMD-SHELL", "https:8443/a?b=c&d"}, want: "https:8443/a?b=c&d", kind: HTTPS},
		{test: []string{"CMD-SHELL", " http:8080 "}, want: "http:8080/", kind: HTTP},
		{test: []string{"CMD", "http:8080?x=1"}, want: "http:8080/?x=1", kind: HTTP},
		{test: []string{"CMD", "http://localhost:80/x"}, want: "http:80/x", kind: HTTP},
		{test: []string{"CMD", "http://[::1]:80/x"}, want: "http://[::1]:80/x", kind: HTTP},
		{test: []string{"CMD", "tcp:5432"}, want: "tcp:5432", kind: TCP},
		{test: []string{"CMD", "tcp://10.0.0.7:53"}, want: "tcp://10.0.0.7:53", kind: TCP},
		{test: []string{"CMD", "grpc:9090"}, want: "grpc:9090", kind: GRPC},
		{test: []string{"CMD", "grpc:9090/my.Service"}, want: "grpc:9090/my.Service", kind: GRPC},
		{test: []string{"CMD", "udp:53"}, want: "udp:53", kind: Command},
		{test: []string{"CMD", "http:"}, err: "port"},
		{test: []string{"CMD", "http:0/"}, err: "port"},
		{test: []string{"CMD", "http:65536/"}, err: "port"},
		{test: []string{"CMD", "http://example.com:80/"}, err: "names are not looked up"},
		{test: []string{"CMD", "http://10.0.0.1/"}, err: "needs a port"},
		{test: []string{"CMD", "http:80/%zz"}, err: "path"},
		{test: []string{"CMD", "tcp:80/x"}, err: "tcp has no path"},
		{test: []string{"CMD-SHELL"}, err: "needs a command"},
	} {
		p, ok, err := Parse(c.test, nil)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v, want %s", c.test, err, c.err)
			}
		case err != nil, ok != (c.want != ""):
			t.Errorf("%q: %v %v", c.test, ok, err)
		case ok && (p.Kind != c.kind || p.String() != c.want):
			t.Errorf("%q: %s %s", c.test, p.Kind, p)
		}
	}
	p, _, _ := Parse([]string{"CMD-SHELL", "x"}, []string{"/bin/bash", "-ec"})
	if got := strings.Join(p.Args, " "); got != "/bin/bash -ec x" {
		t.Errorf("the image's shell: %s", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"http:8080/healthz", "https://[::1]:1/?", "tcp:1", "grpc:65535/a/b", "grpc://1.2.3.4:5", "http://:80/", "http:80/\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok, err := Parse([]string{"CMD", s}, nil)
		if err != nil || !ok || p.Kind == Command {
			return
		}
		if p.Port == 0 || len(p.addresses()) == 0 || strings.ContainsAny(p.Path, "\r\n ") {
			t.Fatalf("%q: %+v", s, p)
		}
		again, ok, err := Parse([]string{"CMD", p.String()}, nil)
		if err != nil || !ok || !reflect.DeepEqual(p, again) {
			t.Fatalf("%q prints as %q: %+v %+v %v", s, p, p, again, err)
		}
	})
}

func FuzzServingStatus(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1})
	f.Fuzz(func(t *testing.T, b []byte) { servingStatus(b) })
}

// String gives the probe as a health check would name it; for a command, its words.
func (p Probe) String() string {
	if p.Kind == Command {
		return strings.Join(p.Args, " ")
	}
	where := strconv.Itoa(int(p.Port))
	if p.Host.IsValid() {
		where = "//" + netip.AddrPortFrom(p.Host, p.Port).String()
	}
	path := p.Path
	if p.Name != "" {
		path = "/" + p.Name
	}
	return string(p.Kind) + ":" + where + path
}
