package oci

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestRecordComesBackAsItWas(t *testing.T) {
	want := &record{
		Version: recordVersion, OCIVersion: "1.3.0", ID: "a+b", PID: 42, StartTime: 1<<64 - 1, Bundle: "/b\"\\\n\u2028é", Rootfs: "/b/rootfs",
		Created: time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC), ConfigHash: hashText([]byte("x")), Cgroup: "rel", PIDNS: true,
		Own: map[string]string{"": "/", "cpu,cpuacct": "/a"}, Systemd: true, Scope: "x.scope", UserScope: true, SharesMounts: true, MountBefore: 1 << 40,
		Annotations: map[string]string{"k": "v\x7f\x01"},
	}
	text := want.encode()
	if !json.Valid(text) {
		t.Fatalf("not JSON:\n%s", text)
	}
	got, err := decodeRecord(text)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestRecordOfAnotherFormatIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"version":2}`:                 "state.json has format 2; this berth-oci reads format 1",
		`{}`:                            "state.json has format 0; this berth-oci reads format 1",
		`{"version":1,"created":"now"}`: `state.json: parsing time "now"`,
		`{"version":1`:                  "line 1, column 13",
	} {
		if _, err := decodeRecord([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want …%s…", text, err, want)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add((&record{Version: 1, Created: time.Unix(0, 0)}).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data)
		if err != nil {
			return
		}
		again, err := decodeRecord(r.encode())
		if err != nil {
			t.Fatalf("%q: written again it is unreadable: %v", data, err)
		}
		if !again.Created.Equal(r.Created) || again.ID != r.ID || again.Bundle != r.Bundle {
			t.Fatalf("%q: %+v became %+v", data, r, again)
		}
	})
}

// docker, containerd and podman read the last line's "msg" to tell why a container did not start.
func TestLogLinesHaveRuncsShape(t *testing.T) {
	var b bytes.Buffer
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := &logHandler{out: &b, level: slog.LevelInfo, now: func() time.Time { return at }}
	slog.New(h).Error(`exec: "x": not found`, "pid", 7)
	slog.New(h).Debug("not shown")
	h.json = true
	slog.New(h).With("a", "b\n").Warn(`exec: "x"`)
	want := `time="2026-01-02T03:04:05Z" level=error msg="exec: \"x\": not found" pid="7"` + "\n" +
		`{"level":"warning","msg":"exec: \"x\"","time":"2026-01-02T03:04:05Z","a":"b\n"}` + "\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"-1": -1, "0": 0, "4096": 4096, "1k": 1024, "1K": 1024, "2kb": 2048, "3MiB": 3 << 20, "1.5g": 3 << 29, "1 m": 1 << 20, "1t": 1 << 40} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-2", "1x", "9999999999999999999", "1e400", "NaN", "8388608t", "k", "1kk"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q became %d", text, got)
		}
	}
}

func TestIDs(t *testing.T) {
	for _, id := range []string{"a", "A_b+c-d.9", "..."} {
		if err := checkID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", ".", "..", "a/b", "a b", "é", "a\x00", strings.Repeat("x", 1025)} {
		if checkID(id) == nil {
			t.Errorf("%q was taken for an id", id)
		}
	}
}

func TestVersions(t *testing.T) {
	for v, want := range map[string]bool{"1.2.1": true, "1.2.0": false, "1.3.0": true, "1.0.2-dev": false, "1.2.1-rc.1+x": true, "x": false, "2.0.0": true, "1.2": false} {
		if got := atLeast(v, 1, 2, 1); got != want {
			t.Errorf("%s at least 1.2.1: %v", v, got)
		}
	}
}

func TestProcessLines(t *testing.T) {
	got, err := processLines("UID  PID CMD\nroot   1 init\nroot  12 sh\nroot 112 x\n", []int{12, 112})
	if want := "UID  PID CMD\nroot  12 sh\nroot 112 x\n"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := processLines("USER CMD\n", nil); err == nil {
		t.Error("a list without numbers was taken")
	}
}
