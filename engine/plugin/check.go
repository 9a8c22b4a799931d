package plugin

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"berth/base/checkup"
)

// CheckStore verifies the records of all managed plugins, and that what they run is there.
func (m *Manager) CheckStore(ctx context.Context, repair bool) checkup.Room {
	room := checkup.Room{Name: "plugins"}
	m.changing.Lock()
	defer m.changing.Unlock()
	names, err := os.ReadDir(m.dir(""))
	if err != nil {
		room.Found(checkup.Damage{Subject: "plugin", What: err.Error()}, nil)
		return room
	}
	seen := map[string]bool{}
	for _, n := range names {
		seen[n.Name()] = true
		m.mu.Lock()
		known := m.plugins[n.Name()]
		m.mu.Unlock()
		onDisk, err := m.read(n.Name())
		path := filepath.Join("plugin/p", n.Name(), "plugin.json")
		switch {
		case known == nil && err != nil:
			room.Found(checkup.Damage{Subject: path, What: "the record cannot be read, and the engine does not know this plugin: " + err.Error(), Advice: "move the directory away and install the plugin again"}, nil)
		case known != nil && (err != nil || !samePlugin(onDisk, known)):
			what := "the record is another one than the engine works by"
			if err != nil {
				what = "the record cannot be read: " + err.Error()
			}
			room.Found(checkup.Damage{Subject: path, What: what, Repair: "written again from the engine's memory"}, m.fix(repair, known))
		}
	}
	m.mu.Lock()
	var lost []*Plugin
	for id, p := range m.plugins {
		if !seen[id] {
			lost = append(lost, p)
		}
	}
	count := len(m.plugins)
	m.mu.Unlock()
	for _, p := range lost {
		room.Found(checkup.Damage{Subject: "plugin " + p.Name, What: "its directory is missing", Advice: "remove the plugin and install it again"}, nil)
	}
	room.Count("plugins", count)
	return room
}

func (m *Manager) fix(repair bool, p *Plugin) func() error {
	if !repair {
		return nil
	}
	return func() error { return m.write(p) }
}

func samePlugin(a, b *Plugin) bool {
	x, xerr := json.Marshal(a)
	y, yerr := json.Marshal(b)
	return xerr == nil && yerr == nil && string(x) == string(y)
}
