package rootless

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/kernel/process"
)

// holder is who keeps the namespaces, and who carries packets for them; rootless.json has it.
type holder struct {
	task
	Network task   `json:"network"`
	Boot    string `json:"boot"`
}

// task is a process that is recognized again: a number alone may be used by another one later. Zero: none.
type task struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after the boot
}

func taskOf(pid int) (task, error) {
	st, err := process.ReadStat(pid)
	return task{pid, st.StartTicks}, err
}

func (t task) alive() bool {
	now, err := taskOf(t.PID)
	return t.PID > 0 && err == nil && now == t
}

// end kills it. pidfd: between the look and the signal the number stays its own.
func (t task) end() {
	if t.PID <= 0 {
		return
	}
	fd, err := unix.PidfdOpen(t.PID, 0)
	if err != nil {
		return // gone
	}
	defer unix.Close(fd)
	if t.alive() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it can only be gone
	}
}

func stateFile(execRoot string) string { return filepath.Join(execRoot, "rootless.json") }

func (h holder) write(execRoot string) error {
	h.Boot = bootID()
	text, err := json.Marshal(h)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "rootless")
	}
	return atomicfile.Write(stateFile(execRoot), text, 0o600)
}

// found gives the holder of an earlier engine, and whether it lives.
func found(execRoot string) (h holder, ok bool) {
	text, err := os.ReadFile(stateFile(execRoot))
	if err != nil || json.Unmarshal(text, &h) != nil || h.Boot != bootID() {
		return holder{}, false
	}
	return h, h.alive()
}

// End ends the user's namespaces: what keeps them, and what carries packets for them. The inner engine calls it when no container is
// left (`berth system shutdown`); it itself goes on until it exits.
func End(execRoot string) {
	h, ok := found(execRoot)
	os.Remove(stateFile(execRoot))
	endNetwork(execRoot, h)
	if ok {
		h.end()
	}
}

// Ended reports whether End was called, or nothing has begun.
func Ended(execRoot string) bool {
	_, err := os.Stat(stateFile(execRoot))
	return os.IsNotExist(err)
}

// endNetwork ends what carries packets for namespaces that are gone: older releases of pasta do not notice. One that was started by an
// engine that was killed before it could write rootless.json is known by its pidfile.
func endNetwork(execRoot string, h holder) {
	h.Network.end()
	text, err := os.ReadFile(pastaFile(execRoot))
	if err != nil {
		return
	}
	os.Remove(pastaFile(execRoot))
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return
	}
	args, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil || !strings.Contains(string(args), "\x00"+pastaFile(execRoot)+"\x00") {
		return // the number is somebody else's by now
	}
	if t, err := taskOf(pid); err == nil {
		t.end()
	}
}

func bootID() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // always there; without it no holder is recognized
	return strings.TrimSpace(string(text))
}
