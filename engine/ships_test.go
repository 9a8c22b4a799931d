package engine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestLeavingCutOff: a removal that died while it moved what was not shipped is repeated, and every line comes once.
func TestLeavingCutOff(t *testing.T) {
	w, c := newWorld(t), newCollector(t)
	w.cfg.CollectorOptional = true
	w.reopen()
	c.leave()
	s := spec(counting(100))
	s.Log = c.options()
	id := w.run("", s)
	w.wait(id)
	r := w.index.get(id).record()
	dir, spool := w.leftDir(id), w.Engine.logPath(r)
	b, err := json.Marshal(leftNote{Version: 1, Driver: "syslog", Info: logInfo(r), Removed: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "note.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	w.ships.byID[id].Stop() // what follows is as the next engine finds it
	if err := os.Rename(spool, filepath.Join(dir, "spool")); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if w.ships.gone[id] {
		t.Error("half of a spool is shipped while the other half is elsewhere")
	}
	c.come()
	if err := w.Remove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("all is there", func() bool { return len(c.got()) >= 100 })
	w.eventually("nothing is left", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
	if n := inOrder(t, c.got()); n != 100 {
		t.Errorf("%d lines", n)
	}
}
