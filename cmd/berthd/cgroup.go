package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/kernel/cgroup"
	"berth/kernel/cgroup/systemd"
)

// placeCgroups puts containers below a unit of systemd's, where that runs the machine and nothing else was asked for: all cgroups are
// systemd's there, and it hands on (Delegate=, systemd.resource-control(5)) the part below a unit, not one beside its own.
//
// It is not the keeper's unit. systemd puts a service's first process into the unit's own cgroup, which the kernel refuses as long as
// cgroups below have controllers (cgroups(7), "no internal processes"): a keeper that ended could not be started again under its
// containers. Only since systemd 254 can a service begin in a leaf (DelegateSubgroup=), which older ones warn of.
//
// On cgroup v1 systemd delegates no controllers; there, and where it refuses, containers are below /berth.
func placeCgroups(ctx context.Context, cfg *config, log *slog.Logger) {
	layout, err := cgroup.Detect()
	if err != nil || layout.Mode != cgroup.V2 || cfg.CgroupChosen || !systemd.Running() {
		return
	}
	group, err := delegated(ctx, layout, containerUnit(cfg.ID))
	if err != nil {
		log.Warn("systemd delegates no cgroup for containers", "instead", cfg.CgroupParent, "error", err)
		return
	}
	cfg.CgroupParent = group
}

// containerUnit is the unit whose cgroup an engine's containers are in.
func containerUnit(id string) string {
	if id != "" {
		return "berth-containers-" + id + ".service"
	}
	return "berth-containers.service"
}

// delegated starts the unit unless it runs, the installed one or, where there is none, a transient one like it, and gives its cgroup.
//
// A unit that ended and cannot start again, because containers are in its cgroup, still has that cgroup.
func delegated(ctx context.Context, layout cgroup.Layout, unit string) (string, error) {
	group, active := unitGroup(ctx, unit)
	if active {
		return group, nil
	}
	// Without --no-ask-password it starts an agent, which would speak to systemd in our name.
	out, err := exec.CommandContext(ctx, "systemctl", "start", "--no-ask-password", unit).CombinedOutput()
	if err != nil && strings.Contains(string(out), "not found") {
		out, err = exec.CommandContext(ctx, "systemd-run", holderArgs(unit)...).CombinedOutput()
	}
	group, active = unitGroup(ctx, unit)
	switch {
	case active:
		return group, awaitLeaf(ctx, layout, group)
	case group == "":
		return "", fault.New(fault.Unavailable, "start %s: %v: %s", unit, err, strings.TrimSpace(string(out)))
	}
	return group, nil
}

// holder is what runs in the unit, for as long as there is to be a cgroup: systemd removes an empty one. It leaves the unit's own cgroup
// to the containers and goes into a leaf. $$ is systemd's way to write $.
const holder = `d=/sys/fs/cgroup$$(sed -n s/^0:://p /proc/self/cgroup)/holder; mkdir -p "$$d" && echo 0 >"$$d/cgroup.procs"; exec sleep infinity`

// holderArgs are systemd-run's for a unit like install/systemd/berth-containers.service.
func holderArgs(unit string) []string {
	return []string{"--quiet", "--collect", "--unit=" + unit, "--description=Berth: the containers' cgroups",
		"--property=Type=exec", "--property=Delegate=yes", "--property=KillMode=process", "--property=OOMPolicy=continue", "--property=TasksMax=infinity", "--property=OOMScoreAdjust=-999",
		"/bin/sh", "-c", holder}
}

// awaitLeaf waits until the holder is in its leaf: as long as it is not, no controllers can be enabled for containers.
func awaitLeaf(ctx context.Context, layout cgroup.Layout, group string) error {
	file := layout.V2().Place(layout.Mode, group) + "/cgroup.procs"
	for {
		procs, err := os.ReadFile(file)
		if err != nil || len(procs) == 0 {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "the process of %s does not leave it", group)
		}
	}
}

// unitGroup gives a unit's cgroup, or "" where it has none, and whether the unit is active.
func unitGroup(ctx context.Context, unit string) (group string, active bool) {
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=ActiveState,ControlGroup", unit).Output()
	if err != nil {
		return "", false
	}
	return parseUnitGroup(string(out))
}

// parseUnitGroup reads what systemctl show wrote, a "Name=value" a line. The root is no unit's.
func parseUnitGroup(text string) (group string, active bool) {
	for line := range strings.Lines(text) {
		switch name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "="); name {
		case "ActiveState":
			active = value == "active"
		case "ControlGroup":
			group = value
		}
	}
	if !strings.HasPrefix(group, "/") || group == "/" {
		return "", false
	}
	return group, active
}

// keeperUnit is the installed unit of the keeper, which serves the default exec root. Another gets a transient one.
func keeperUnit(cfg config) string {
	if cfg.ExecRoot != defaultExecRoot {
		return ""
	}
	return "berth-keeper.service"
}

// keeperCgroup makes the keeper's own leaf below the parent of all containers, so that it does not live and die with the session that
// berthd was started from, and gives the files through which it gets in. Where that is not possible the keeper stays where it is
// started. Where systemd starts the keeper, it has a unit of its own.
func keeperCgroup(cfg config, log *slog.Logger) []string {
	layout, err := cgroup.Detect()
	if err != nil || systemd.Running() && !cfg.Rootless {
		return nil // without cgroups engine.Open says it
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

// removeCgroups takes the parent of all containers away after a shutdown, if nothing is left in it. A slice is systemd's, and so is the
// cgroup of a unit: that is stopped, which kills nothing.
func removeCgroups(cfg config, log *slog.Logger) {
	if unit := containerUnit(cfg.ID); !cfg.CgroupChosen && systemd.Running() {
		if _, active := unitGroup(context.Background(), unit); active {
			if out, err := exec.Command("systemctl", "stop", unit).CombinedOutput(); err != nil {
				log.Debug("the containers' unit stays", "error", err, "output", string(out))
			}
		}
	}
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
