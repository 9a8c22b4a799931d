package main

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"berth/kernel/cgroup/systemd"
	"berth/runtime/rootless"
)

const (
	// statePatience is how long systemd may take to say what it is doing.
	statePatience = 10 * time.Second
	// moreTime is what the engine asks systemd for again and again while containers use the time that is theirs; a fraction of it passes in between.
	moreTime = 30 * time.Second
)

// machineGoesDown reports whether the engine is being ended because systemd ends the whole machine, and not the engine alone, which
// no container notices. An engine of an ordinary user cannot ask from inside his namespaces: his containers end with his systemd.
func machineGoesDown(log *slog.Logger) bool {
	if !systemd.Running() || rootless.Inside() {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), statePatience)
	defer cancel()
	m, err := systemd.Connect(ctx, false)
	if err != nil {
		log.Warn("whether the machine goes down is not known: containers go on", "error", err)
		return false
	}
	defer m.Close()
	down, err := m.GoingDown(ctx)
	if err != nil {
		log.Warn("whether the machine goes down is not known: containers go on", "error", err)
	}
	return down
}

// stopForMachine stops all containers before the machine ends. systemd ends our unit first, then the keeper's and that of the containers'
// cgroups (After= in berth.service), and only then the network and the disks; it waits for each. What else `berth system shutdown` takes
// away goes with the machine.
func (r *rooms) stopForMachine(log *slog.Logger) {
	ctx, cancel := r.stopPatience()
	defer cancel()
	log.Info("the machine goes down: stopping all containers")
	done := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() { askForTime(done, func(state string) { notifySystemd(log, state) }) })
	defer asking.Wait()
	defer close(done)
	if err := r.engine.Shutdown(ctx, true); err != nil {
		log.Error("not every container was stopped", "error", err)
	}
	r.close() // within the time that is asked for
}

// askForTime keeps systemd from killing us at the end of TimeoutStopSec= (90 s) while a container has a longer stop timeout.
func askForTime(done <-chan struct{}, notify func(string)) {
	// In microseconds, sd_notify(3).
	state := "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(moreTime.Microseconds(), 10)
	again := time.NewTicker(moreTime / 3)
	defer again.Stop()
	for {
		notify(state)
		select {
		case <-again.C:
		case <-done:
			return
		}
	}
}

// stopPatience bounds the stopping of all containers: each has its own time until SIGKILL, and those that have for ever have this.
func (r *rooms) stopPatience() (context.Context, context.CancelFunc) {
	if seconds := r.patience.Load(); seconds >= 0 {
		return context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second+time.Minute)
	}
	return context.WithCancel(context.Background())
}
