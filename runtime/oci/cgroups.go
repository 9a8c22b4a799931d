package oci

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/kernel/cgroup"
)

// cgroups makes the container's cgroup, unless we are rootless and may not.
func (b *birth) cgroups() error {
	if b.t.systemd {
		return b.systemdCgroup()
	}
	path := b.cfg.Spec.Linux.CgroupsPath
	if path == "" {
		path = b.c.id // below our own cgroup, so that delegated trees are not left
	}
	cg, err := b.t.makeCgroup(path, b.cfg, b.cfg.Spec.Linux.CgroupsPath == "")
	if err == nil && cg == nil && !ownNamespace(b.cfg.Spec, specs.PIDNamespace) {
		b.t.log.Warn("Creating a rootless container with no cgroup and no private pid namespace. " +
			"Such configuration is strongly discouraged: its processes cannot all be found and ended")
	}
	if err != nil || cg == nil {
		return err
	}
	if b.cfg.Spec.Linux.CgroupsPath != "" { // it may have been there already, and a frozen process never starts
		if frozen, err := cg.Frozen(); err == nil && frozen {
			return fault.New(fault.Conflict, "container's cgroup unexpectedly frozen: thaw %s, or choose another cgroup path", path)
		}
	}
	b.cg, b.c.rec.Cgroup = cg, path
	if path[0] != '/' {
		b.c.rec.Own = ownCgroups(cg.Layout())
	}
	return nil
}

// ownCgroups gives our own cgroup in each hierarchy, by the hierarchy's controllers ("" on v2).
func ownCgroups(l cgroup.Layout) map[string]string {
	own := make(map[string]string, len(l.Hierarchies))
	for i := range l.Hierarchies {
		own[hierarchyKey(&l.Hierarchies[i])] = l.Hierarchies[i].Own
	}
	return own
}

func hierarchyKey(h *cgroup.Hierarchy) string {
	if h.V2 {
		return ""
	}
	return strings.Join(h.Controllers, ",")
}

// makeCgroup makes a cgroup with the configuration's limits. nil without an error: this user may make
// none, and the configuration did not ask for a certain one.
func (t *tool) makeCgroup(path string, cfg *configuration, optional bool) (*cgroup.Cgroup, error) {
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	plan, err := cgroup.Plan(layout, path, cfg.Spec.Linux.Resources)
	if err != nil {
		if fault.Is(err, fault.Invalid) {
			err = fmt.Errorf("invalid configuration: %w", err)
		}
		return nil, err
	}
	if inUserNamespace() {
		// Its root decides about no devices: whoever made the namespace has.
		plan.Steps = slices.DeleteFunc(plan.Steps, func(st cgroup.Step) bool { return st.Field == "linux.resources.devices" })
	}
	cg, err := plan.Apply()
	if err == nil || !fault.Is(err, fault.Forbidden) || !t.rootless() {
		return cg, err
	}
	plan.Lenient = true
	cg, err = plan.Apply()
	if err != nil && optional && fault.Is(err, fault.NotFound) {
		return nil, nil // not one hierarchy let us
	}
	return cg, err
}

// cgroup finds the container's cgroup again; nil without an error when it has none.
func (c *container) cgroup() (*cgroup.Cgroup, error) {
	if c.rec.Cgroup == "" {
		return nil, nil
	}
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	for i := range layout.Hierarchies {
		h := &layout.Hierarchies[i]
		if own, ok := c.rec.Own[hierarchyKey(h)]; ok {
			h.Own = own
		}
	}
	return cgroup.Open(layout, c.rec.Cgroup)
}

// mustCgroup is cgroup for commands that can do nothing without one.
func (c *container) mustCgroup(doing string) (*cgroup.Cgroup, error) {
	cg, err := c.cgroup()
	if err == nil && cg == nil {
		err = fault.New(fault.Conflict, "cannot %s container %s: it was made without a cgroup", doing, c.id)
	}
	return cg, err
}

// destroy removes what a container without processes still holds: its cgroup, then its directory.
// A container that never got as far as state.json is told by its configuration where the cgroup is.
func (c *container) destroy(cg *cgroup.Cgroup) error {
	if cg == nil && c.rec == nil {
		cg = c.plannedCgroup()
	}
	if cg != nil {
		if err := cg.Remove(); err != nil {
			return err
		}
	}
	if c.rec != nil {
		if err := c.rec.unmountRoot(); err != nil {
			return err
		}
	}
	if c.rec != nil && c.rec.Scope != "" {
		c.stopScope()
	}
	return c.remove()
}

// plannedCgroup is where a create that was interrupted may have made the cgroup.
func (c *container) plannedCgroup() *cgroup.Cgroup {
	cfg, err := c.config()
	if err != nil || c.tool.systemd {
		return nil
	}
	path := cfg.Spec.Linux.CgroupsPath
	if path == "" {
		path = c.id
	}
	layout, err := cgroup.Detect()
	if err != nil || filepath.Clean("/"+path) == "/" {
		return nil
	}
	cg, err := cgroup.Open(layout, path)
	if err != nil {
		return nil
	}
	return cg
}
