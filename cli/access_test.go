package cli

import (
	"strings"
	"testing"
	"time"
)

func TestExpiryMoments(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for text, want := range map[string]string{
		"24h": "2026-03-05T05:06:07Z", "7d": "2026-03-11T05:06:07Z", "2026-12-31T23:59:00+01:00": "2026-12-31T22:59:00Z",
		"-1h": "", "0s": "", "0d": "", "-3d": "", "tomorrow": "", "": "",
	} {
		got, err := moment(text, now)
		if (err != nil) != (want == "") || err == nil && got.Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// What strangers have sent does not command the terminal of who reads the log.
func TestAccessLogIsPlainText(t *testing.T) {
	e := accessEntry{Socket: "ci", Method: "GET", Path: "/containers/\x1b]0;x\x07/json", Reason: "a\nb\u009b31m", User: "CN=\x1b[2J"}
	if got := strings.Join(e.row(), " "); strings.ContainsAny(got, "\x1b\x07\n\u009b") || !strings.Contains(got, "/containers/\uFFFD]0;x\uFFFD/json: a\uFFFDb") {
		t.Errorf("%q", got)
	}
}
