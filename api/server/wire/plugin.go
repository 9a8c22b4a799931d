package wire

import (
	"encoding/json"

	plugintypes "github.com/moby/moby/api/types/plugin"

	"berth/base/fault"
	"berth/engine/plugin"
)

// Plugin describes a managed plugin. Its configuration is what its maker wrote, read into Docker's type.
func Plugin(p *plugin.Plugin) (*plugintypes.Plugin, error) {
	out := &plugintypes.Plugin{ID: p.ID, Name: p.Name, Enabled: p.Enabled, PluginReference: p.Remote}
	if err := json.Unmarshal(p.RawConfig, &out.Config); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the configuration of plugin %s", p.Name)
	}
	settings, err := json.Marshal(p.Settings)
	if err != nil {
		return nil, err
	}
	// Both have the same fields; ours are written without regard to case.
	return out, json.Unmarshal(settings, &out.Settings)
}
