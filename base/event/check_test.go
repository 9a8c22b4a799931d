package event

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCheckStore(t *testing.T) {
	dir := t.TempDir()
	text := segmentHeader
	for n := range uint64(5) {
		text += string(encodeLine(n, Event{Type: "container", Action: "start", ID: "x", Time: time.Unix(int64(n), 0)}))
	}
	bad := strings.Replace(text, "start", "stort", 1)
	os.WriteFile(filepath.Join(dir, "00000000000000000000"+segmentSuffix), []byte(bad), 0o600)
	os.WriteFile(filepath.Join(dir, "00000000000000000005"+segmentSuffix), []byte(segmentHeader+"torn"), 0o600) // being written
	j, err := OpenJournal(dir, JournalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	room := j.CheckStore(t.Context(), false)
	if len(room.Damages) != 1 || room.OK() || room.Checked[0].N != 4 {
		t.Errorf("%+v", room)
	}
	if room = j.CheckStore(t.Context(), true); len(room.Damages) != 1 || !room.OK() {
		t.Errorf("repair: %+v", room)
	}
	if room = j.CheckStore(t.Context(), false); len(room.Damages) != 0 || room.Checked[0].N != 4 {
		t.Errorf("after it: %+v", room)
	}
}
