package syslog

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRsyslog sends in every form and by every way to a real rsyslogd, and compares what that made of it.
func TestRsyslog(t *testing.T) {
	rsyslogd, err := exec.LookPath("rsyslogd")
	if err != nil {
		t.Skip("needs rsyslogd: Debian's package rsyslog")
	}
	dir := t.TempDir()
	sock, out := filepath.Join(dir, "sock"), filepath.Join(dir, "out")
	tcp, udp := freePort(t), freePort(t)
	conf := fmt.Sprintf(`global(workDirectory="%s")
module(load="imudp")
input(type="imudp" address="127.0.0.1" port="%d")
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="%d")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="%s")
template(name="t" type="string" string="%%syslogfacility-text%%.%%syslogseverity-text%% %%programname%%%%msg:::sp-if-no-1st-sp%%%%msg%%\n")
*.* action(type="omfile" file="%s" template="t" flushOnTXEnd="on" asyncWriting="off")
`, dir, udp, tcp, sock, out)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(rsyslogd, "-n", "-f", filepath.Join(dir, "conf"), "-i", filepath.Join(dir, "pid"))
	var words strings.Builder
	cmd.Stderr = &words
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(words.String())
		}
	}()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", tcp))
		if err == nil {
			c.Close()
			if _, err = os.Stat(sock); err == nil {
				break
			}
		}
		if time.Now().After(end) {
			t.Fatalf("rsyslogd does not listen: %v\n%s", err, words.String())
		}
	}
	for _, address := range []string{fmt.Sprint("udp://127.0.0.1:", udp), fmt.Sprint("tcp://127.0.0.1:", tcp), "unix://" + sock} {
		for _, format := range []string{"", "rfc3164", "rfc5424", "rfc5424micro"} {
			if strings.HasPrefix(address, "unix") && format != "" {
				continue // its parser of local messages wants no host
			}
			os.Truncate(out, 0)
			send(t, map[string]string{"syslog-address": address, "syslog-format": format, "syslog-facility": "local1", "tag": "tag"})
			want := "local1.info tag one\nlocal1.err tag two words\nlocal1.info tag four\n"
			got := ""
			for end := time.Now().Add(time.Minute); got != want && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				b, _ := os.ReadFile(out)
				got = strings.TrimLeft(string(b), "\x00")
			}
			if got != want {
				t.Errorf("%s %s: %q", address, format, got)
			}
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
