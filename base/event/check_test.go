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

// A repair takes out what is damaged, and nothing that can be read or that somebody else wrote.
func TestCheckKeepsWhatIsWhole(t *testing.T) {
	text := segmentHeader
	for n := range uint64(5) {
		text += string(encodeLine(n, Event{Type: "container", Action: "start", ID: "x", Time: time.Unix(int64(n), 0)}))
	}
	for name, c := range map[string]struct {
		text       string
		good       int
		repairable bool
	}{
		"a damaged header":     {"berth-evEnts 1\n" + text[len(segmentHeader):], 5, true},
		"another format":       {"berth-events 2\n" + text[len(segmentHeader):], 0, false},
		"a line and a header":  {strings.Replace("xerth-events 1\n"+text[len(segmentHeader):], "start", "stort", 1), 4, true},
		"less than a header":   {"berth", 0, true},
		"nothing but a header": {segmentHeader, 0, true},
	} {
		j := &Journal{dir: t.TempDir()}
		path := filepath.Join(j.dir, "00000000000000000000"+segmentSuffix)
		os.WriteFile(path, []byte(c.text), 0o600)
		os.WriteFile(filepath.Join(j.dir, "00000000000000000005"+segmentSuffix), []byte(segmentHeader), 0o600)
		os.Symlink("gone", filepath.Join(j.dir, "00000000000000000001"+segmentSuffix)) // as if it was deleted meanwhile
		if room := j.CheckStore(t.Context(), true); room.OK() != c.repairable || room.Checked[0].N != c.good {
			t.Errorf("%s: %+v", name, room)
		}
		after, _ := os.ReadFile(path)
		if !c.repairable && string(after) != c.text {
			t.Errorf("%s: it was changed", name)
		}
		if room := j.CheckStore(t.Context(), false); room.OK() != c.repairable || room.Checked[0].N != c.good {
			t.Errorf("%s, after the repair: %+v", name, room)
		}
	}
}
