package network

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/netns"
	"berth/network/driver"
)

// box is a sandbox with what belongs to it here.
type box struct {
	changing sync.Mutex // held by who changes the sandbox, over the work

	// Guarded by Networks.mu; values that were handed out are not changed.
	Sandbox
	want Want
	keep map[string]map[string]string // by endpoint id: what its driver wants back

	written time.Time // its file, where it was made by a former life
}

// sandboxFile is RUNROOT/sandbox/CONTAINER-ID.json. It is written before what it tells of is made, and removed after all
// of it is gone: what is not in it does not exist. Of this boot only, so it is not synced.
type sandboxFile struct {
	Version int                          `json:"version"`
	Ready   bool                         `json:"ready"` // all of it is made
	Sandbox Sandbox                      `json:"sandbox"`
	Want    Want                         `json:"want"`
	Keep    map[string]map[string]string `json:"keep,omitempty"`
}

func (n *Networks) sandboxPath(containerID string) string {
	return filepath.Join(n.sandboxDir(), containerID+".json")
}

// writeBox writes what a sandbox is or is about to be.
func (n *Networks) writeBox(f sandboxFile) error {
	f.Version = formatVersion
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	path := n.sandboxPath(f.Sandbox.ContainerID)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fault.Wrap(fault.Internal, err, "write sandbox")
	}
	if err := failpoint.Hit("network/sandbox-written"); err != nil {
		return fault.In(err, "write sandbox")
	}
	return fault.Wrap(fault.Internal, os.Rename(path+".new", path), "write sandbox")
}

func (n *Networks) removeBox(containerID string) error {
	err := os.Remove(n.sandboxPath(containerID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fault.Wrap(fault.Internal, err, "forget sandbox")
}

// readSandboxes reads the sandboxes of this boot. Those whose making was cut short, and those whose namespace is gone, are
// kept too until Recovered takes them away: their containers do not run.
func (n *Networks) readSandboxes() error {
	files, err := os.ReadDir(n.sandboxDir())
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(n.sandboxDir(), f.Name())
		if !strings.HasSuffix(f.Name(), ".json") {
			os.Remove(path) // a write that was cut short: the file before it counts
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var s sandboxFile
		if err := json.Unmarshal(b, &s); err != nil || s.Version != formatVersion || s.Sandbox.ContainerID+".json" != f.Name() {
			n.log.Error("a sandbox's file is not readable and is dropped", "file", f.Name(), "err", err)
			os.Remove(path)
			continue
		}
		info, err := f.Info()
		if err != nil {
			return err
		}
		n.adopt(s, info.ModTime())
	}
	return nil
}

// adopt takes up a sandbox that was made before: its addresses are taken, its endpoints known.
func (n *Networks) adopt(s sandboxFile, written time.Time) {
	b := &box{Sandbox: s.Sandbox, want: s.Want, keep: s.Keep, written: written}
	if b.keep == nil {
		b.keep = map[string]map[string]string{}
	}
	n.boxes[b.ContainerID], n.bySB[b.ID] = b, b
	for i := range b.Endpoints {
		e := &b.Endpoints[i]
		x := n.nets[e.NetworkID]
		if x == nil {
			continue // it is taken away with its sandbox
		}
		x.endpoints[b.ContainerID] = e
		if err := x.take(*e); err != nil {
			n.log.Warn("a container's address is somebody else's too", "container", b.ContainerID, "network", x.Name, "err", err)
		}
	}
}

// sandboxFiles are the files of namespaces that sandboxes have.
func (n *Networks) sandboxFiles() map[string]bool {
	used := map[string]bool{}
	for _, b := range n.boxes {
		used[filepath.Base(b.Key)] = true
	}
	return used
}

// Sandbox gives the network of a container that runs.
func (n *Networks) Sandbox(containerID string) (Sandbox, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	b := n.boxes[containerID]
	if b == nil {
		return Sandbox{}, false
	}
	return b.Sandbox, true
}

// left describes an endpoint to its driver for the end.
func (b *box) left(e Endpoint, ns *os.File, ending bool) driver.Left {
	return driver.Left{
		EndpointID: e.ID, SandboxID: b.ID, ContainerID: b.ContainerID, ContainerName: e.Container, Key: b.Key, NS: ns,
		Interface: e.Interface, HostLink: e.HostLink, IPv4: e.IPv4, IPv6: e.IPv6, Options: e.Spec.Options, Keep: b.keep[e.ID], Ending: ending,
	}
}

// openNS opens a sandbox's namespace; nil where it is gone.
func (b *box) openNS() *os.File {
	ns, err := netns.Open(b.Key)
	if err != nil {
		return nil
	}
	return ns
}
