package top

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestFull(t *testing.T) {
	boot := time.Date(2030, 5, 1, 0, 0, 0, 0, time.UTC)
	stat := func(name string, ppid, tty int, cpu, start int64) string {
		return fmt.Sprintf("7 (%s) S %d 7 7 %d -1 4194560 1 2 3 4 %d %d 0 0 20 0 1 0 %d 1 1", name, ppid, tty, cpu, cpu, start)
	}
	proc := fstest.MapFS{
		"stat":       {Data: []byte(fmt.Sprintf("cpu 1\nbtime %d\n", boot.Unix()))},
		"10/stat":    {Data: []byte(stat("a) (b", 1, 136<<8|5, 6100, 100*3600))},
		"10/status":  {Data: []byte("Name:\tx\nUid:\t1\t0\t0\t0\n")},
		"10/cmdline": {Data: []byte("sh\x00-c\x00echo \x1b[2J\x00")},
		"11/stat":    {Data: []byte(stat("defunct", 10, 0, 0, 100*86400*3))},
		"11/status":  {Data: []byte("Uid:\t1\t1234\t0\t0\n")},
		"11/cmdline": {Data: nil},
	}
	h := Host{Proc: proc, Now: boot.Add(10 * time.Hour), Ticks: 100, Name: func(uid int) string {
		return map[int]string{0: "systemd-network"}[uid]
	}}
	table, err := Full(h, []int{10, 11, 12})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%q", table.Rows)
	want := `[["systemd+" "10" "1" "0" "01:00" "pts/5" "00:02:02" "sh -c echo ?[2J"] ["1234" "11" "10" "0" "May04" "?" "00:00:00" "[defunct]"]]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestFullOfThisProcess(t *testing.T) {
	table, err := Full(Host{Proc: os.DirFS("/proc"), Now: time.Now(), Ticks: 100, Name: func(int) string { return "" }}, []int{os.Getpid()})
	if err != nil || len(table.Rows) != 1 || !strings.Contains(table.Rows[0][7], "test") {
		t.Errorf("%v, %v", table, err)
	}
}

func TestPick(t *testing.T) {
	out := "PID  COMMAND\n  1 init\n 22 sleep 1 2\n  - thread\n 33 x\n\n"
	table, err := Pick(out, []int{22})
	if got := fmt.Sprintf("%q %v", table.Rows, err); got != `[["22" "sleep 1 2"] ["-" "thread"]] <nil>` {
		t.Error(got)
	}
	for out, want := range map[string]string{"": "Couldn't find PID field in ps output", "A B\n": "Couldn't find PID field in ps output", "PID\nx": "Unexpected pid"} {
		if _, err := Pick(out, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", out, err)
		}
	}
}

func TestCheckArgs(t *testing.T) {
	for args, ok := range map[string]bool{"-ef": true, "-o pid,cmd": true, "-o pid=PID": true, "-o ppid=PID": false, "-o user= PID": false} {
		if err := CheckArgs(args); (err == nil) != ok {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func FuzzPick(f *testing.F) {
	f.Add("PID CMD\n1 a b c\n")
	f.Fuzz(func(t *testing.T, out string) { Pick(out, []int{1}) })
}

func FuzzStat(f *testing.F) {
	f.Add("7 (x) S 1 7 7 0 -1 1 1 2 3 4 5 6 0 0 20 0 1 0 9 1 1")
	f.Fuzz(func(t *testing.T, s string) { parseStat(s) })
}
