package engine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"time"

	"berth/base/fault"
	"berth/engine/top"
)

// psPatience bounds a run of the host's ps.
const psPatience = 10 * time.Second

// Top lists the container's processes. With no arguments, or -ef, the engine reads /proc itself; other arguments are the host's ps's.
func (e *Engine) Top(ctx context.Context, ref, psArgs string) (Top, error) {
	if err := top.CheckArgs(psArgs); err != nil {
		return Top{}, err
	}
	c, err := e.index.find(ref)
	if err != nil {
		return Top{}, err
	}
	switch s := c.snapshot().State; {
	case s.Restarting:
		return Top{}, fault.New(fault.Conflict, "Container %s is restarting, wait until the container is running", c.id)
	case !s.Running:
		return Top{}, fault.New(fault.Conflict, "container %s is not running", c.id)
	}
	cg := c.cgroup()
	if cg == nil {
		return Top{}, fault.New(fault.Conflict, "container %s is not running", c.id)
	}
	pids, err := cg.Procs()
	if err != nil {
		return Top{}, fault.In(err, "listing the processes of container %s", c.id)
	}
	table, err := processes(ctx, psArgs, pids)
	if err != nil {
		return Top{}, err
	}
	e.tell(c, "top", nil)
	return Top{Titles: table.Titles, Processes: table.Rows}, nil
}

func processes(ctx context.Context, psArgs string, pids []int) (top.Table, error) {
	if psArgs == "" || psArgs == "-ef" {
		return top.Full(top.Host{Proc: os.DirFS("/proc"), Name: hostUser, Now: time.Now(), Ticks: 100}, pids)
	}
	output, err := ps(ctx, append(strings.Fields(psArgs), "-q", joinInts(pids)))
	if err != nil { // not every selection goes together with -q
		output, err = ps(ctx, strings.Fields(psArgs))
	}
	if err != nil {
		return top.Table{}, err
	}
	return top.Pick(output, pids)
}

func ps(ctx context.Context, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, psPatience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ps", args...).Output()
	var failed *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", fault.New(fault.NotImplemented, "ps is not installed on the host; without it only the columns of -ef can be shown")
	case errors.As(err, &failed) && len(failed.Stderr) > 0:
		line, _, _ := strings.Cut(string(failed.Stderr), "\n")
		return "", fault.New(fault.Invalid, "ps: %s", line)
	case err != nil:
		return "", fault.Wrap(fault.Internal, err, "running ps")
	}
	return string(out), nil
}

func hostUser(uid int) string {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return ""
	}
	return u.Username
}

func joinInts(ns []int) string {
	var s []string
	for _, n := range ns {
		s = append(s, strconv.Itoa(n))
	}
	return strings.Join(s, ",")
}
