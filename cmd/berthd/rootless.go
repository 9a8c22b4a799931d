package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/base/userdirs"
	"berth/kernel/cgroup"
	"berth/runtime/rootless"
)

// places are where things are when nothing is said.
type places struct{ dataRoot, execRoot, configFile, host string }

// defaultPlaces gives the machine's, or for an ordinary user's engine those of the XDG base directories.
func defaultPlaces() places {
	if !rootless.Wanted() && !rootless.Inside() {
		return places{defaultDataRoot, defaultExecRoot, defaultConfigFile, defaultHost}
	}
	d := userdirs.Of(os.Getenv)
	return places{dataRoot: d.Data, execRoot: d.Run, configFile: filepath.Join(d.Config, "daemon.json"), host: "unix://" + d.Socket()}
}

// becomeRootless runs the engine in namespaces of the user's and gives its exit code.
func becomeRootless(cfg config, log *slog.Logger) int {
	ctx := context.Background()
	group, leaf := "", ""
	if !cfg.CgroupChosen {
		var err error
		if group, leaf, err = userCgroup(ctx, cfg); err != nil {
			log.Error("an engine of a user needs a cgroup of its own", "error", err)
			return 1
		}
	}
	code, err := rootless.Become(ctx, rootless.Config{ExecRoot: cfg.ExecRoot, Cgroup: group, Log: log})
	if err != nil {
		log.Error("rootless", "error", err)
	}
	if rootless.Ended(cfg.ExecRoot) {
		leaveUserCgroup(ctx, cfg, leaf, log)
	}
	return code
}

// leaveUserCgroup takes back what userCgroup made, once no container is left.
func leaveUserCgroup(ctx context.Context, cfg config, leaf string, log *slog.Logger) {
	switch {
	case leaf != "":
		leaveCgroup(leaf)
	case !cfg.CgroupChosen:
		ctx, cancel := context.WithTimeout(ctx, requestPatience)
		defer cancel()
		if out, err := exec.CommandContext(ctx, "systemctl", "--user", "stop", containerUnit(cfg.ID)).CombinedOutput(); err != nil {
			log.Debug("the containers' unit stays", "error", err, "output", string(out))
		}
	}
}

// userCgroup finds the part of the unified hierarchy that is the user's: of a unit of his systemd, or whatever this process is in, if
// somebody gave it to him. The engine goes into a leaf of it, containers into another.
//
// group is for containers, as the kernel names it; leaf is the directory that the engine was put into, "" where it stays.
func userCgroup(ctx context.Context, cfg config) (group, leaf string, err error) {
	layout, err := cgroup.Detect()
	if err != nil {
		return "", "", err
	}
	v2 := layout.V2()
	if v2 == nil {
		return "", "", fault.New(fault.NotImplemented, "cgroup v2 is not mounted: on this machine only root has cgroups")
	}
	if userSystemd() {
		if outsideManager(v2.Own, os.Getuid()) {
			enterScope()
		}
		group, err = systemdUserGroup(ctx, layout, containerUnit(cfg.ID))
		if err == nil {
			return group, "", nil
		}
		fmt.Fprintln(os.Stderr, "berthd: the user's systemd gives no cgroup:", err)
	}
	own := strings.TrimSuffix(v2.Own, "/engine") // where an earlier engine of ours has put the shell that starts us again
	if own == "" {
		own = "/"
	}
	dir := filepath.Join(v2.Dir, own)
	if unix.Access(dir, unix.W_OK) != nil || unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) != nil {
		return "", "", fault.New(fault.Forbidden, "the cgroup %s is not this user's; start the engine through the user's systemd (systemd-run --user --scope -p Delegate=yes berthd), or let root give it to him: chown -R %d %s", own, os.Getuid(), dir)
	}
	leaf = filepath.Join(dir, "engine")
	if err := os.Mkdir(leaf, 0o755); err != nil && !os.IsExist(err) {
		return "", "", fault.Wrap(fault.Internal, err, "a cgroup for the engine")
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
		return "", "", fault.Wrap(fault.Internal, err, "a cgroup for the engine")
	}
	return filepath.Join(own, "containers"), leaf, nil
}

// leaveCgroup goes back to where we came from, so that nothing of the engine's is left. It may fail in the middle: a shell that started us
// from there has taken part of it.
func leaveCgroup(leaf string) {
	parent := filepath.Dir(leaf)
	text, _ := os.ReadFile(filepath.Join(parent, "cgroup.subtree_control"))
	for _, c := range strings.Fields(string(text)) { // no processes beside controllers, cgroups(7)
		_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("-"+c), 0)
	}
	_ = os.WriteFile(filepath.Join(parent, "cgroup.procs"), []byte("0"), 0)
	for range 50 { // what was just killed takes a moment to be gone
		if err := os.Remove(leaf); err == nil || !errors.Is(err, unix.EBUSY) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// systemdPatience bounds what the user's systemd is asked for.
const systemdPatience = 20 * time.Second

// userSystemd reports whether a systemd serves this user.
func userSystemd() bool {
	_, err := os.Stat(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "systemd/private"))
	return err == nil && os.Getenv("XDG_RUNTIME_DIR") != ""
}

// outsideManager reports whether a process in a cgroup is outside of what the user's systemd manages, as in a login's session: from there
// the kernel moves no process into a cgroup of his units, since what is above both is root's (cgroups(7), "delegation containment").
func outsideManager(own string, uid int) bool {
	return !strings.Contains(own+"/", fmt.Sprintf("/user@%d.service/", uid))
}

// scopeVariable says that enterScope was tried.
const scopeVariable = "_BERTH_ROOTLESS_SCOPE"

// enterScope starts this command line again in a scope of the user's systemd, which has the machine's move it there. It returns where that
// is not possible; what then cannot be done says so itself.
func enterScope() {
	run, err := exec.LookPath("systemd-run")
	if err != nil || os.Getenv(scopeVariable) != "" {
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	args := append([]string{"systemd-run", "--user", "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--", self}, os.Args[1:]...)
	_ = unix.Exec(run, args, append(os.Environ(), scopeVariable+"=1")) // it returns only when it failed
}

// systemdUserGroup is delegated for the user's systemd.
func systemdUserGroup(ctx context.Context, layout cgroup.Layout, unit string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	show := func() (string, bool) {
		out, err := exec.CommandContext(ctx, "systemctl", "--user", "show", "--property=ActiveState,ControlGroup", unit).Output()
		if err != nil {
			return "", false
		}
		return parseUnitGroup(string(out))
	}
	if group, active := show(); active {
		return group, nil
	}
	args := append([]string{"--user"}, holderArgs(unit)...)
	for i, a := range args {
		if a == "--property=OOMScoreAdjust=-999" { // root's to give
			args = append(args[:i], args[i+1:]...)
			break
		}
	}
	out, err := exec.CommandContext(ctx, "systemd-run", args...).CombinedOutput()
	if group, active := show(); active {
		if layout.Mode != cgroup.V2 {
			return group, nil
		}
		return group, awaitLeaf(ctx, layout, group)
	}
	return "", fault.New(fault.Unavailable, "start %s: %v: %s", unit, err, strings.TrimSpace(string(out)))
}

// insideConfig completes the configuration of the inner engine with what the outer one found.
func insideConfig(cfg *config) {
	if group := rootless.Cgroup(); group != "" {
		cfg.CgroupParent, cfg.CgroupChosen = group, true
	}
	cfg.Rootless = true
}
