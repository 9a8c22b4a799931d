package csi

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"berth/base/atomicfile"
	"berth/base/fault"
)

const stateVersion = 1

// The phases of a volume. They only move forward.
const (
	creating = "creating" // asked for, not answered: it may exist
	ready    = "ready"
	deleting = "deleting"
)

// state is ROOT/NAME.json: what is needed to go on with a volume after a crash.
type state struct {
	Version int    `json:"version"`
	Driver  string `json:"driver"`           // the name it was found by
	Socket  string `json:"socket,omitempty"` // of the driver "csi"
	Request string `json:"request"`          // the name given to the driver, random: another engine may have a volume of ours
	Phase   string `json:"phase"`            //
	// Forgotten: removed by force while that was not possible; the user sees it no more.
	Forgotten bool                `json:"forgotten,omitempty"`
	Snapshot  bool                `json:"snapshot,omitempty"` // it is a snapshot, not a volume
	Static    bool                `json:"static,omitempty"`   // made by others: never deleted
	ID        string              `json:"id,omitempty"`       // the driver's
	Created   time.Time           `json:"created"`
	Options   map[string]string   `json:"options,omitempty"`
	Context   map[string]string   `json:"context,omitempty"`
	Capacity  int64               `json:"capacity,omitempty"` // bytes; 0: unknown
	Topology  []map[string]string `json:"topology,omitempty"`
	From      *source             `json:"from,omitempty"`
	Attach    *attachment         `json:"attach,omitempty"` // nil: not attached by the controller
	Grow      int64               `json:"grow,omitempty"`   // bytes that the file system must still be told of
}

// shown reports whether the volume is still one for its user: made, and not given up.
func (s *state) shown() bool { return s.Phase != creating && !s.Forgotten }

// source is what a volume's content came from, or what a snapshot is of.
type source struct {
	ID       string `json:"id"`
	Snapshot bool   `json:"snapshot,omitempty"`
}

// attachment is a ControllerPublish; Done false: asked for, not answered.
type attachment struct {
	Node    string            `json:"node"`
	Done    bool              `json:"done"`
	Context map[string]string `json:"context,omitempty"`
}

// here is RUNROOT/NAME/state.json: what was done on this host since it was started. True means perhaps.
type here struct {
	Staged    bool `json:"staged"`
	Published bool `json:"published"`
}

// store reads and writes states.
type store struct{ root, run string }

func (s store) read(name string) (*state, error) {
	b, err := os.ReadFile(s.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st := &state{}
	if err := json.Unmarshal(b, st); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "read %s", s.file(name))
	}
	if st.Version > stateVersion {
		return nil, fault.New(fault.Internal, "%s has version %d, this build reads up to %d", s.file(name), st.Version, stateVersion)
	}
	return st, nil
}

func (s store) write(name string, st *state) error {
	st.Version = stateVersion
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return atomicfile.Write(s.file(name), append(b, '\n'), 0o600)
}

func (s store) remove(name string) error {
	if err := os.RemoveAll(s.dir(name)); err != nil { // directories only: nothing is mounted there any more
		return err
	}
	return atomicfile.Remove(s.file(name))
}

func (s store) rename(name, to string) error { return atomicfile.Rename(s.file(name), s.file(to)) }

func (s store) names() ([]string, error) {
	list, err := os.ReadDir(s.root)
	var names []string
	for _, e := range list {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	return names, err
}

func (s store) readHere(name string) (here, error) {
	var h here
	b, err := os.ReadFile(filepath.Join(s.dir(name), "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return h, err
	}
	return h, json.Unmarshal(b, &h)
}

func (s store) writeHere(name string, h here) error {
	if err := os.MkdirAll(s.dir(name), 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(s.dir(name), "state.json"), b, 0o600)
}

func (s store) file(name string) string    { return filepath.Join(s.root, name+".json") }
func (s store) dir(name string) string     { return filepath.Join(s.run, name) }
func (s store) staging(name string) string { return filepath.Join(s.run, name, "staging") }
func (s store) target(name string) string  { return filepath.Join(s.run, name, "target") }
