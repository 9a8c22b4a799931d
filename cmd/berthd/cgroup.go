package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/kernel/cgroup"
)

// keeperCgroup makes the keeper's own leaf below the parent of all containers, so that it does not live and die with the session that
// berthd was started from, and gives the files through which it gets in. Where that is not possible the keeper stays where it is
// started. Where systemd starts the keeper, it has a unit of its own and this changes nothing.
func keeperCgroup(cfg config, log *slog.Logger) []string {
	layout, err := cgroup.Detect()
	if err != nil {
		return nil // engine.Open says it
	}
	everything := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	setup, err := cgroup.Plan(layout, filepath.Join(cfg.CgroupParent, "keeper"), everything)
	if err != nil {
		log.Debug("the keeper gets no cgroup of its own", "error", err)
		return nil
	}
	if _, err := setup.Apply(); err != nil && !fault.Is(err, fault.Conflict) { // Conflict: a keeper is in it
		log.Debug("the keeper gets no cgroup of its own", "error", err)
		return nil
	}
	var procs []string
	for _, s := range setup.Steps {
		if s.Op == cgroup.Mkdir {
			procs = append(procs, filepath.Join(s.Dir, "cgroup.procs"))
		}
	}
	return procs
}

// removeCgroups takes the parent of all containers away after a shutdown, if nothing is left in it. A slice is systemd's.
func removeCgroups(cfg config, log *slog.Logger) {
	layout, err := cgroup.Detect()
	if err != nil || strings.HasSuffix(cfg.CgroupParent, ".slice") {
		return
	}
	if leaf, err := cgroup.Open(layout, filepath.Join(cfg.CgroupParent, "keeper")); err == nil {
		if err := leaf.Remove(); err != nil { // waits for the keeper to be gone
			log.Debug("the keeper's cgroup stays", "error", err)
		}
	}
	for i := range layout.Hierarchies {
		os.Remove(layout.Hierarchies[i].Place(layout.Mode, cfg.CgroupParent)) // not empty: another engine's, or a container that stays
	}
}
