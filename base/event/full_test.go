package event

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// On a full disk events wait in memory, where whoever asks finds them, and are written when there is room again.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("berth-test", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs a tmpfs of its own: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	root := filepath.Join(dir, "events")
	b := openBus(t, root, JournalOptions{MaxBytes: MinJournal})
	b.Publish(Event{Action: "before"})
	b.journal.waitWritten(t)
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := f.Write(make([]byte, 512)); err != nil {
			break
		}
	}
	f.Close()
	want := []string{"before"}
	for i := range 3000 { // more than memory keeps beside the queue
		want = append(want, fmt.Sprint(i))
		b.Publish(Event{Action: want[len(want)-1]})
	}
	time.Sleep(5 * time.Millisecond)
	if got, lost := all(t, b, time.Unix(1, 0)); !slices.Equal(actions(got), want) || lost != 0 {
		t.Errorf("while the disk is full: %d events, %d lost, want %d", len(got), lost, len(want))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	b.journal.waitWritten(t)
	b.Close()
	b = openBus(t, root, JournalOptions{MaxBytes: MinJournal})
	got, _ := all(t, b, time.Unix(1, 0))
	if len(got) == 0 || !slices.Equal(actions(got), want[len(want)-len(got):]) {
		t.Errorf("afterwards: %d events", len(got))
	}
}
