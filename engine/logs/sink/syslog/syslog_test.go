package syslog

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/engine/logs/sink"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.Local)

func records() []sink.Record {
	return []sink.Record{{Time: at, Line: []byte("one")}, {Time: at, Line: []byte("two words"), Stderr: true}, {Time: at}, {Time: at, Line: []byte("four")}}
}

func send(t *testing.T, o map[string]string) {
	t.Helper()
	if err := Check(o); err != nil {
		t.Fatal(err)
	}
	s, err := New(&sink.Info{ContainerID: "0123456789abcdef", ContainerName: "/web", Config: o})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Probe(context.Background()); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := s.Send(context.Background(), records(), func(i int) { n = i }); err != nil || n != 4 {
		t.Fatal(err, n)
	}
}

// want are the messages of records in a format, without their newlines.
func want(format string, facility int) (all []string) {
	host, _ := os.Hostname()
	pid := strconv.Itoa(os.Getpid())
	for _, r := range []struct {
		severity int
		text     string
	}{{6, "one"}, {3, "two words"}, {6, "four"}} {
		head := fmt.Sprintf("<%d>", facility*8+r.severity)
		switch format {
		case "":
			head += "Jan  2 03:04:05 tag[" + pid + "]: "
		case "rfc3164":
			head += "Jan  2 03:04:05 " + host + " tag[" + pid + "]: "
		case "rfc5424":
			head += "1 " + at.Format(time.RFC3339) + " " + host + " tag " + pid + " tag - "
		case "rfc5424micro":
			head += "1 " + at.Format("2006-01-02T15:04:05.000000Z07:00") + " " + host + " tag " + pid + " tag - "
		}
		all = append(all, head+r.text)
	}
	return all
}

func TestDatagrams(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "log")
	unixgram, err := net.ListenPacket("unixgram", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer unixgram.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, format := range []string{"", "rfc3164", "rfc5424", "rfc5424micro"} {
		for address, c := range map[string]net.PacketConn{"udp://" + udp.LocalAddr().String(): udp, "unixgram://" + sock: unixgram, "unix://" + sock: unixgram} {
			send(t, map[string]string{"syslog-address": address, "syslog-format": format, "syslog-facility": "local1", "tag": "tag"})
			for _, w := range want(format, 17) {
				b := make([]byte, 2048)
				c.SetReadDeadline(time.Now().Add(time.Minute))
				n, _, err := c.ReadFrom(b)
				if got := string(b[:n]); err != nil || got != w+"\n" {
					t.Errorf("%s %s: %q, %v, want %q", address, format, got, err, w)
				}
			}
		}
	}
}

func TestStreams(t *testing.T) {
	cert, ca := certificate(t)
	for _, c := range []struct {
		scheme, format string
		framed         bool
	}{{"tcp", "", false}, {"tcp", "rfc5424", false}, {"unix", "rfc3164", false}, {"tcp+tls", "rfc3164", false}, {"tcp+tls", "rfc5424", true}, {"tcp+tls", "rfc5424micro", true}} {
		network, listenAt := "tcp", "127.0.0.1:0"
		if c.scheme == "unix" {
			network, listenAt = "unix", filepath.Join(t.TempDir(), "s")
		}
		l, err := net.Listen(network, listenAt)
		if err != nil {
			t.Fatal(err)
		}
		if c.scheme == "tcp+tls" {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
		}
		got := make(chan string, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(conn)
			got <- string(b)
		}()
		address := c.scheme + "://" + l.Addr().String()
		o := map[string]string{"syslog-address": address, "syslog-format": c.format, "tag": "tag"}
		if c.scheme == "tcp+tls" {
			o["syslog-tls-ca-cert"] = ca
		}
		send(t, o)
		r := bufio.NewReader(strings.NewReader(<-got))
		for _, w := range want(c.format, 3) {
			if c.framed {
				size, _ := r.ReadString(' ')
				if n, _ := strconv.Atoi(strings.TrimSpace(size)); n != len(w)+1 {
					t.Errorf("%v: length %q of %q", c, size, w)
				}
			}
			if line, err := r.ReadString('\n'); err != nil || line != w+"\n" {
				t.Errorf("%v: %q, %v, want %q", c, line, err, w)
			}
		}
		if rest, _ := io.ReadAll(r); len(rest) > 0 {
			t.Errorf("%v: %q more", c, rest)
		}
		l.Close()
	}
}

func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, ca
}

func TestProbe(t *testing.T) {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	address := l.Addr().String()
	l.Close()
	s, err := New(&sink.Info{ContainerID: "0123456789abcdef", Config: map[string]string{"syslog-address": "tcp://" + address}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Probe(context.Background()); fmt.Sprint(err) != "dial tcp "+address+": connect: connection refused" {
		t.Error(err)
	}
}
