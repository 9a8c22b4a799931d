package webhook

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestChild is no test: it is the process that TestKilled kills. It notices events and says which are on disk.
func TestChild(t *testing.T) {
	file := os.Getenv("WEBHOOK_TEST_FILE")
	if file == "" {
		t.Skip("it is run by TestKilled")
	}
	w, err := Open(Config{File: file, Log: quiet()})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	if err := w.Set(Endpoint{Name: "ci", URL: os.Getenv("WEBHOOK_TEST_URL"), Threshold: 1}); err != nil {
		os.Exit(1)
	}
	for i := 0; ; i++ {
		e := pushed(0)
		e.ID = fmt.Sprintf("%s-%d", os.Getenv("WEBHOOK_TEST_ROUND"), i)
		w.Notify(e)
		if err := w.flush(); err != nil { // what the writer took itself is on disk when it is ours to write
			os.Exit(1)
		}
		w.db.Sync()
		fmt.Println(e.ID)
		time.Sleep(time.Millisecond)
	}
}

// TestKilled kills a registry's webhooks again and again while they notice and tell: what was on disk is told in the end, in
// order, and at most what was told last comes twice.
func TestKilled(t *testing.T) {
	e := listen(t)
	file := filepath.Join(t.TempDir(), "w.db")
	var noticed []string
	const rounds = 8
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestChild$")
		cmd.Env = append(os.Environ(), "WEBHOOK_TEST_FILE="+file, "WEBHOOK_TEST_URL="+e.URL, fmt.Sprint("WEBHOOK_TEST_ROUND=", round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		const sure = 3 // events that it notices however slow the machine is
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			noticed = append(noticed, lines.Text())
			if n == sure-1 {
				kill := time.AfterFunc(time.Duration(13*round)*time.Millisecond, func() { cmd.Process.Kill() })
				defer kill.Stop()
			}
		}
		cmd.Wait()
	}
	w := open(t, file)
	defer w.Close()
	until(t, "the queue is empty", func() bool { return status(t, w, "ci").Pending == 0 })
	heard := map[string]int{}
	twice := 0
	for _, v := range e.heard() {
		if heard[v.ID]++; heard[v.ID] > 1 {
			twice++
		}
	}
	lost := 0
	for _, id := range noticed {
		if heard[id] == 0 {
			lost++
		}
	}
	// The event in the writer's hands when its process died may be among those that our side counted as written.
	if lost > rounds || twice > rounds*batch || len(noticed) < 3*rounds {
		t.Errorf("of %d events %d were lost, %d came twice", len(noticed), lost, twice)
	}
}
