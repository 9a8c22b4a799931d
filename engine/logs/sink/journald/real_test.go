package journald

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"berth/engine/logs/sink"
)

// TestRealJournal writes to the machine's journal and reads it back with journalctl.
func TestRealJournal(t *testing.T) {
	if os.Getenv("BERTH_JOURNAL") == "" {
		t.Skip("needs BERTH_JOURNAL=1: it writes to the machine's journal")
	}
	if _, err := os.Stat(Socket); err != nil {
		t.Skip("needs systemd-journald: ", err)
	}
	journalctl, err := exec.LookPath("journalctl")
	if err != nil {
		t.Skip("needs journalctl: Debian's package systemd")
	}
	i := info()
	i.ContainerName = "/berth-test-" + strings.ReplaceAll(time.Now().Format("150405.000000"), ".", "")
	s, err := New(i, Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	big := strings.Repeat("x", 300<<10)
	records := []sink.Record{{Time: time.Now(), Line: []byte("one"), Number: 1}, {Time: time.Now(), Line: []byte("two"), Stderr: true, Number: 2}, {Time: time.Now(), Line: []byte(big), Number: 3}}
	if err := s.Send(context.Background(), records, func(int) {}); err != nil {
		t.Fatal(err)
	}
	want := "one\ntwo\n" + big + "\n"
	got := ""
	for end := time.Now().Add(time.Minute); got != want && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		b, _ := exec.Command(journalctl, "--no-pager", "-a", "-q", "-o", "cat", "CONTAINER_NAME="+i.Name()).Output()
		got = string(b)
	}
	if got != want {
		t.Errorf("%.200q", got)
	}
}
