package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/base/fault"
	"berth/engine/logs/sink"
)

// TestOptions has Docker 26.1's own words, as its API answered them.
func TestOptions(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	os.WriteFile(sock, nil, 0o600)
	for _, c := range []struct {
		driver, options string
		want            string // "" it is fine
	}{
		{"json-file", "", ""},
		{"json-file", "max-size=10m max-file=3 compress=true labels=a,b labels-regex=^x env=E env-regex=^Y tag={{.Name}}", ""},
		{"json-file", "max-size=-1", ""},
		{"json-file", "mode=blocking", ""},
		{"json-file", "mode=non-blocking max-buffer-size=4m", ""},
		{"json-file", "cache-disabled=true", ""},
		{"json-file", "foo=1", "unknown log opt 'foo' for json-file log driver"},
		{"json-file", "mode=odd", "logger: logging mode not supported: odd"},
		{"json-file", "max-buffer-size=1m", "logger: max-buffer-size option is only supported with 'mode=non-blocking'"},
		{"json-file", "mode=non-blocking max-buffer-size=zz", "error parsing option max-buffer-size: invalid size: 'zz'"},
		{"json-file", "cache-disabled=zz", "invalid value for option cache-disabled: zz"},
		{"json-file", "max-size=0", "max-size must be a positive number: 0"},
		{"json-file", "max-size=x", "max-size must be a positive number: x"},
		{"json-file", "max-file=0", "max-file cannot be less than 1"},
		{"json-file", "compress=true", "compress cannot be true when max-file is less than 2 or max-size is not set"},
		{"json-file", "env-regex=(", "log opt env-regex: error parsing regexp: missing closing ): `(`"},
		{"local", "", ""},
		{"local", "max-size=1m max-file=1 compress=false", ""},
		{"local", "foo=1", "unknown log opt 'foo' for log driver local"},
		{"local", "max-file=1", "compression cannot be enabled when max file count is 1"},
		{"local", "compress=zz", `invalid boolean value for compress: strconv.ParseBool: parsing "zz": invalid syntax`},
		{"local", "max-size=zz", "invalid value for max-size: zz: invalid size: 'zz'"},
		{"none", "", ""},
		{"none", "max-size=1m", "unknown log opt 'max-size' for none log driver"},
		{"journald", "labels=a env=b tag=c cache-max-size=1m", ""},
		{"journald", "foo=1", "unknown log opt 'foo' for journald log driver"},
		{"syslog", "", ""},
		{"syslog", "syslog-address=unix://" + sock + " syslog-format=rfc5424micro syslog-facility=local3", ""},
		{"syslog", "syslog-address=tcp+tls://h:1 syslog-facility=9 syslog-tls-ca-cert=/nope", ""},
		{"syslog", "foo=1", "unknown log opt 'foo' for syslog log driver"},
		{"syslog", "syslog-address=foo", "unsupported scheme: ''"},
		{"syslog", "syslog-address=ftp://foo", "unsupported scheme: 'ftp'"},
		{"syslog", "syslog-address=unix:///nope", "stat /nope: no such file or directory"},
		{"syslog", "syslog-address=tcp://a:b:c", `parse "tcp://a:b:c": invalid port ":c" after host`},
		{"syslog", "syslog-facility=zz", "invalid syslog facility"},
		{"syslog", "syslog-facility=24", "invalid syslog facility"},
		{"syslog", "syslog-format=zz", "Invalid syslog format"},
		{"gelf", "gelf-address=udp://h:1 gelf-compression-type=none gelf-compression-level=9", ""},
		{"gelf", "gelf-address=tcp://h:1 gelf-tcp-max-reconnect=3 gelf-tcp-reconnect-delay=2", ""},
		{"gelf", "", "gelf-address is a required parameter"},
		{"gelf", "gelf-address=foo", "gelf: endpoint needs to be TCP or UDP"},
		{"gelf", "gelf-address=udp://x", "gelf: please provide gelf-address as proto://host:port"},
		{"gelf", "gelf-address=udp://x:1 gelf-compression-type=zz", `unknown value "zz" for log opt "gelf-compression-type" for gelf log driver`},
		{"gelf", "gelf-address=udp://x:1 gelf-compression-level=99", `unknown value "99" for log opt "gelf-compression-level" for gelf log driver`},
		{"gelf", "gelf-address=tcp://x:1 gelf-compression-type=gzip", "compression is only supported on UDP"},
		{"gelf", "gelf-address=udp://x:1 gelf-tcp-max-reconnect=1", `"gelf-tcp-max-reconnect" is only valid for TCP`},
		{"gelf", "gelf-address=tcp://x:1 gelf-tcp-max-reconnect=-1", `"gelf-tcp-max-reconnect" must be a positive integer`},
		{"gelf", "gelf-address=tcp://x:1 gelf-tcp-reconnect-delay=zz", `"gelf-tcp-reconnect-delay" must be a positive integer`},
		{"gelf", "gelf-address=udp://x:1 foo=1", `unknown log opt "foo" for gelf log driver`},
		{"fluentd", "", ""},
		{"fluentd", "fluentd-address=h:1 fluentd-async=true fluentd-buffer-limit=8m fluentd-retry-wait=2s fluentd-max-retries=9 fluentd-request-ack=1 fluentd-sub-second-precision=t", ""},
		{"fluentd", "foo=1", "unknown log opt 'foo' for fluentd log driver"},
		{"fluentd", "fluentd-address=tcp://x:zz", `invalid fluentd-address (tcp://x:zz): parse "tcp://x:zz": invalid port ":zz" after host`},
		{"fluentd", "fluentd-address=ftp://x", "invalid fluentd-address (ftp://x): unsupported scheme: 'ftp'"},
		{"fluentd", "fluentd-address=unix://", "invalid fluentd-address (unix://): path is empty"},
		{"fluentd", "fluentd-address=tcp://x:1/path", "invalid fluentd-address (tcp://x:1/path): should not contain a path element"},
		{"fluentd", "fluentd-buffer-limit=zz", "invalid size: 'zz'"},
		{"fluentd", "fluentd-retry-wait=zz", `time: invalid duration "zz"`},
		{"fluentd", "fluentd-max-retries=zz", `strconv.ParseUint: parsing "zz": invalid syntax`},
		{"fluentd", "fluentd-async=zz", `strconv.ParseBool: parsing "zz": invalid syntax`},
		{"fluentd", "fluentd-async=true fluentd-async-connect=true", "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect"},
		{"fluentd", "fluentd-async-reconnect-interval=1ms", `invalid value for fluentd-async-reconnect-interval: value ("1ms") must be between 100ms and 10s`},
		{"nosuch", "", `error looking up logging plugin nosuch: plugin "nosuch" not found`},
		{"awslogs", "", "log driver awslogs is not in this build; there are fluentd, gelf, journald, json-file, local, none, syslog"},
	} {
		o := map[string]string{}
		for _, kv := range strings.Fields(c.options) {
			k, v, _ := strings.Cut(kv, "=")
			o[k] = v
		}
		_, err := Configure(c.driver, o)
		if got := fmt.Sprint(err); err == nil && c.want != "" || err != nil && got != c.want {
			t.Errorf("%s %s: %s, want %s", c.driver, c.options, got, c.want)
		}
		if kind := fault.KindOf(err); err != nil && kind != fault.Invalid && c.driver != "awslogs" {
			t.Errorf("%s %s: %v", c.driver, c.options, kind)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		driver  string
		options map[string]string
		bound   int64
		want    string // size files compress
	}{
		{"json-file", nil, 0, "-1 1 false"},
		{"json-file", nil, 100 << 20, "20971520 5 false"},
		{"json-file", map[string]string{"max-file": "2"}, 100 << 20, "52428800 2 false"},
		{"json-file", map[string]string{"max-size": "1k"}, 100 << 20, "1000 1 false"},
		{"json-file", map[string]string{"max-size": "-1"}, 100 << 20, "-1 1 false"},
		{"local", nil, 5, "20971520 5 true"},
		{"local", map[string]string{"max-size": "10k", "max-file": "3"}, 0, "10000 3 true"},
		{"syslog", nil, 0, "20971520 5 true"},
		{"syslog", map[string]string{"cache-max-size": "10k", "cache-max-file": "3", "cache-compress": "false"}, 0, "10000 3 false"},
		{"syslog", map[string]string{"cache-max-size": "10k", "cache-max-file": "1", "cache-compress": "false"}, 0, "5000 2 false"},
		{"syslog", map[string]string{"cache-disabled": "true"}, 0, "20971520 5 false"},
	} {
		cfg, err := Configure(c.driver, c.options)
		cfg.Bound(c.bound)
		if got := fmt.Sprint(cfg.MaxSize, cfg.MaxFiles, cfg.Compress); err != nil || got != c.want {
			t.Errorf("%s %v: %s, %v, want %s", c.driver, c.options, got, err, c.want)
		}
	}
}

func TestTagAndAttributes(t *testing.T) {
	i := &sink.Info{
		ContainerID: "0123456789abcdef", ContainerName: "/web", ContainerImageID: "sha256:fedcba9876543210", ContainerImageName: "nginx:1", ContainerEntrypoint: "sh",
		ContainerArgs: []string{"-c", "x"}, ContainerLabels: map[string]string{"a": "1", "c": "2", "xy": "7"}, ContainerEnv: []string{"X=3", "Y1=4", "Z=5", "a=6", "bare"},
		DaemonName: "docker",
	}
	for text, want := range map[string]string{
		"": "0123456789ab", "{{.Name}}": "web", "{{.ImageName}}/{{.Name}}/{{.ID}}": "nginx:1/web/0123456789ab", "{{.FullID}}": "0123456789abcdef",
		"{{.ImageID}} {{.ImageFullID}}": "fedcba987654 sha256:fedcba9876543210", "{{.DaemonName}} {{.Command}}": "docker sh -c x",
		`{{index .ContainerLabels "a"}}`: "1", "{{upper .Name}}{{truncate .Name 2}}": "WEBwe", `{{join (split "a b" " ") ","}}`: "a,b", "{{json .Name}}": `"web"`,
	} {
		i.Config = map[string]string{"tag": text}
		if got, err := i.Tag(sink.DefaultTag); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"{{.Nope}}", "{{"} {
		i.Config = map[string]string{"tag": text}
		if _, err := i.Tag(""); err == nil {
			t.Errorf("%s is fine", text)
		}
	}
	i.Config = map[string]string{"labels": "a,b", "env": "X", "env-regex": "^Y", "labels-regex": "^x"}
	if got, err := i.Attrs(nil); err != nil || fmt.Sprint(got) != "[{X 3} {Y1 4} {a 1} {xy 7}]" {
		t.Error(got, err)
	}
	if got, _ := i.Attrs(func(s string) string { return "_" + s }); fmt.Sprint(got) != "[{_X 3} {_Y1 4} {_a 1} {_xy 7}]" {
		t.Error(got)
	}
}
