package keeper

import (
	"context"
	"time"

	"berth/base/fault"
)

// StartConfig says how to start a keeper.
type StartConfig struct {
	ExecRoot string // directory of keeper.sock, keeper.lock, keeper.journal, keeper.log; made 0711 if missing
	Binary   string // path of berth-keeper; "": beside the running binary, then on PATH

	// CgroupProcs are cgroup.procs files of the keeper's own leaf, one for each hierarchy; it moves
	// itself there before it launches anything. The caller makes the directories.
	CgroupProcs []string

	OOMScoreAdj int // wanted for the keeper itself, for instance -999; what was got stands in Info

	Unit      string        // systemd unit to start where systemd is pid 1, for instance "berth-keeper.service"; "": a transient one
	NoSystemd bool          // never through systemd
	Timeout   time.Duration // until it answers; 0: ten seconds
}

// Start starts a keeper for the exec root, detached from the caller, unless one answers already.
// Only one can live in an exec root: a second that is started at the same time finds the lock held.
func Start(ctx context.Context, cfg StartConfig) error {
	return fault.New(fault.NotImplemented, "not yet")
}
