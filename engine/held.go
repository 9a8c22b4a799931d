package engine

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"berth/base/fault"
	"berth/base/wait"
	"berth/kernel/process"
)

// Nothing outlives SIGKILL but a process that the kernel cannot wake: one that waits for a disk, a network file system or a FUSE server
// that does not answer. What holds a container is looked for where the kernel tells it, so that the error of whoever gave up names it.

// whatHolds tells what keeps a container from ending, for an error: a clause, or "" where nothing is found.
func (e *Engine) whatHolds(c *entry, asked time.Time) string {
	if why := e.keeperTrouble(); why != "" {
		return why
	}
	var all []string
	cg := c.cgroup()
	pids := []int{c.snapshot().State.Pid}
	if cg != nil {
		if frozen, err := cg.Frozen(); err == nil && frozen {
			all = append(all, "its cgroup "+c.record().Cgroup+" is frozen")
		}
		if procs, err := cg.Procs(); err == nil && len(procs) > 0 {
			pids = procs
		}
	}
	more := 0
	for _, pid := range pids {
		held := stuck(pid)
		switch {
		case held == "":
		case len(all) >= 3:
			more++
		default:
			all = append(all, held)
		}
	}
	if more > 0 {
		all = append(all, fmt.Sprintf("%d more processes likewise", more))
	}
	if len(all) == 0 {
		return ""
	}
	return strings.Join(all, "; ") + fmt.Sprintf(" (for %v since it was killed)", time.Since(asked).Round(time.Second))
}

// stuck tells why a process does not end, or "" for one that could.
func stuck(pid int) string {
	if pid <= 0 {
		return ""
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return ""
	}
	for _, t := range threads { // a thread may wait while the first has ended
		dir := fmt.Sprintf("/proc/%d/task/%s", pid, t.Name())
		state, name := stateOf(dir)
		if state != 'D' {
			continue
		}
		text := fmt.Sprintf("process %d (%s) is in uninterruptible sleep", pid, name)
		if where := sleepsIn(dir); where != "" {
			text += " in " + where
		}
		return text
	}
	return ""
}

func stateOf(dir string) (state byte, name string) {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0, ""
	}
	open, end := strings.IndexByte(string(b), '('), strings.LastIndex(string(b), ") ")
	if open < 0 || end < open || end+2 >= len(b) {
		return 0, ""
	}
	return b[end+2], string(b[open+1 : end])
}

// sleepsIn names the kernel's functions that a thread is in, the innermost first: what it waits for shows in them (fuse_…, nfs_…, io_schedule).
func sleepsIn(dir string) string {
	var names []string
	if b, err := os.ReadFile(dir + "/stack"); err == nil { // root only, and not in every kernel
		for line := range strings.Lines(string(b)) {
			_, f, ok := strings.Cut(strings.TrimSpace(line), "] ")
			if f, _, _ = strings.Cut(f, "+"); ok && f != "" && len(names) < 4 {
				names = append(names, f)
			}
		}
	}
	if len(names) == 0 {
		if b, err := os.ReadFile(dir + "/wchan"); err == nil && len(b) > 0 && string(b) != "0" {
			names = []string{string(b)}
		}
	}
	return strings.Join(names, " ← ")
}

// keeperTrouble tells what is wrong with the keeper as the kernel sees it, or "".
func (e *Engine) keeperTrouble() string {
	pid := int(e.keeperPID.Load())
	if pid == 0 {
		return ""
	}
	st, err := process.ReadStat(pid)
	if err != nil {
		return ""
	}
	switch st.State {
	case 'T', 't':
		return fmt.Sprintf("berth-keeper, process %d, is stopped; let it go on with: kill -CONT %d", pid, pid)
	case 'D':
		return fmt.Sprintf("berth-keeper, process %d, is in uninterruptible sleep in %s", pid, sleepsIn(fmt.Sprintf("/proc/%d", pid)))
	}
	return ""
}

// keeperReady refuses at once what a stopped keeper would let wait. One that merely sleeps for a moment is waited for.
func (e *Engine) keeperReady() error {
	why := e.keeperTrouble()
	if why == "" || !strings.Contains(why, "is stopped") {
		return nil
	}
	return fault.New(fault.Unavailable, "the keeper does not answer: %s. Containers that run are not concerned", why)
}

// askKeeper notes which process the keeper is, for when it does not answer any more.
func (e *Engine) askKeeper(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, infoPatience)
	defer cancel()
	if k, err := e.keeper.Info(ctx); err == nil {
		e.keeperPID.Store(int64(k.PID))
	}
}

// infoPatience bounds questions to the keeper whose answer is only shown.
const infoPatience = 500 * time.Millisecond

// working notes who has the right to work on c, which was just taken, and gives what gives it back.
func (c *entry) working(what string) (end func()) {
	w := c.e.cfg.Waits.Begin(what, c.id)
	c.holder.Store(w)
	return func() {
		c.holder.Store(nil)
		w.End()
		<-c.op
	}
}

// otherWork names who works on c.
func (c *entry) otherWork() string {
	if w := c.holder.Load(); w != nil {
		return fmt.Sprintf("%s, under way for %v", w.What(), time.Since(w.Since()).Round(time.Second))
	}
	return "another request"
}

// steps carries the work on c to its steps, which are told by their names.
func (c *entry) steps(ctx context.Context) context.Context { return wait.With(ctx, c.holder.Load()) }

// closePatience bounds how long a closing engine waits for its own work. What hangs longer hangs in the kernel, or at somebody who does not
// answer; the next engine finds it where it is.
const closePatience = 20 * time.Second

// awaitWork waits for what the engine does behind. It gives up after a while and names what goes on.
func (e *Engine) awaitWork() {
	done := make(chan struct{})
	go func() { e.work.Wait(); close(done) }()
	t := time.NewTimer(closePatience)
	defer t.Stop()
	select {
	case <-done:
		return
	case <-t.C:
	}
	for _, w := range e.cfg.Waits.List(closePatience) {
		e.log.Warn("the engine ends although this goes on", "what", w.What, "on", w.On, "since", w.Since, "step", w.Step, "behind", w.Behind)
	}
}
