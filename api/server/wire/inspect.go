package wire

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/storage"

	"berth/engine/container"
)

// Inspect is the answer to GET /containers/ID/json at API version v. ids may be nil.
func Inspect(i *container.Info, d *Defaults, ids NetworkIDs, v Version) any {
	r := containertypes.InspectResponse{
		ID: i.ID, Created: stamp(i.Created), Path: i.Path, Args: list(i.Args), State: state(&i.State), Image: i.ImageID,
		ResolvConfPath: i.ResolvConfPath, HostnamePath: i.HostnamePath, HostsPath: i.HostsPath, LogPath: i.LogPath, Name: "/" + i.Name,
		RestartCount: i.RestartCount, Driver: i.Driver, Platform: or(i.Platform, "linux"), MountLabel: i.MountLabel, ProcessLabel: i.ProcessLabel,
		AppArmorProfile: i.AppArmorProfile, ExecIDs: i.ExecIDs, HostConfig: HostSettings(i, d), GraphDriver: graphDriver(i),
		SizeRw: i.SizeRw, SizeRootFs: i.SizeRootFs, Mounts: mountPoints(i), Config: Config(i),
		NetworkSettings: networkSettings(i, ids, v),
	}
	if v >= 52 {
		return &r
	}
	return &legacyInspect{
		InspectResponse: &r,
		Config:          legacyConfig{Config: r.Config, OnBuild: r.Config.OnBuild, MacAddress: mainMAC(&i.Spec.Network)},
		NetworkSettings: legacyNetworkSettings{NetworkSettings: r.NetworkSettings, legacyBridge: legacyBridgeOf(r.NetworkSettings.Networks["bridge"])},
	}
}

// legacyInspect has the fields that 1.52 dropped.
type legacyInspect struct {
	*containertypes.InspectResponse
	Config          legacyConfig
	NetworkSettings legacyNetworkSettings
}

type legacyConfig struct {
	*containertypes.Config
	OnBuild    []string // was there also when it was empty
	MacAddress string   `json:",omitempty"`
}

// legacyNetworkSettings told about the default bridge.
type legacyNetworkSettings struct {
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	legacyBridge
	*containertypes.NetworkSettings
}

// Summary is one container in the answer to GET /containers/json at API version v. image is the name to show for its image.
func Summary(i *container.Info, image string, ids NetworkIDs, v Version, now time.Time) containertypes.Summary {
	s := containertypes.Summary{
		ID: i.ID, Names: []string{"/" + i.Name}, Image: image, ImageID: i.ImageID, Command: i.Command, Created: i.Created.Unix(),
		Ports: portSummaries(i), Labels: i.Spec.Labels, State: containertypes.ContainerState(i.State.Status),
		Status: Status(&i.State, now), NetworkSettings: networkSummary(i, ids),
		Mounts: mountPoints(i),
	}
	for _, name := range i.LinkNames {
		s.Names = append(s.Names, "/"+name)
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	if i.SizeRw != nil {
		s.SizeRw = *i.SizeRw
	}
	if i.SizeRootFs != nil {
		s.SizeRootFs = *i.SizeRootFs
	}
	s.HostConfig.NetworkMode = i.Spec.Network.Mode
	if v >= 46 {
		s.HostConfig.Annotations = i.Spec.Annotations
	}
	if v >= 52 {
		s.Health = &containertypes.HealthSummary{Status: containertypes.HealthStatus(i.State.HealthStatus())}
		if h := i.State.Health; h != nil {
			s.Health.FailingStreak = h.FailingStreak
		}
	}
	return s
}

// Status says where a container stands in the words that `docker ps` shows.
func Status(s *container.State, now time.Time) string {
	since := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch {
	case s.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, since(s.FinishedAt))
	case s.Paused:
		return "Up " + since(s.StartedAt) + " (Paused)"
	case s.Running:
		return "Up " + since(s.StartedAt) + healthNote(s.Health)
	case s.Status == container.Removing:
		return "Removal In Progress"
	case s.Dead:
		return "Dead"
	case s.StartedAt.IsZero() && s.FinishedAt.IsZero():
		return "Created"
	case s.FinishedAt.IsZero():
		return ""
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, since(s.FinishedAt))
}

// healthNote is what a status says of the container's health.
func healthNote(h *container.Health) string {
	switch {
	case h == nil:
		return ""
	case h.Status == container.Starting:
		return " (health: starting)"
	}
	return " (" + string(h.Status) + ")"
}

// health is what inspect shows of the probes; nil where there is no check.
func health(h *container.Health) *containertypes.Health {
	if h == nil {
		return nil
	}
	out := &containertypes.Health{Status: containertypes.HealthStatus(h.Status), FailingStreak: h.FailingStreak, Log: []*containertypes.HealthcheckResult{}}
	for _, r := range h.Log {
		out.Log = append(out.Log, &containertypes.HealthcheckResult{Start: r.Start, End: r.End, ExitCode: r.ExitCode, Output: r.Output})
	}
	return out
}

func state(s *container.State) *containertypes.State {
	return &containertypes.State{
		Status: containertypes.ContainerState(s.Status), Running: s.Running, Paused: s.Paused, Restarting: s.Restarting, OOMKilled: s.OOMKilled,
		Dead: s.Dead, Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error, StartedAt: stamp(s.StartedAt), FinishedAt: stamp(s.FinishedAt),
		Health: health(s.Health),
	}
}

// graphDriver says where the layers are. A running container's whole file system can be seen through /proc.
func graphDriver(i *container.Info) *storage.DriverData {
	data := map[string]string{"LowerDir": strings.Join(i.Lower, ":"), "UpperDir": i.Upper, "WorkDir": i.Work}
	if i.State.Pid != 0 {
		data["MergedDir"] = "/proc/" + strconv.Itoa(i.State.Pid) + "/root"
	}
	return &storage.DriverData{Name: i.Driver, Data: data}
}

// stamp is a moment as Docker writes it; the zero one is 0001-01-01T00:00:00Z.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// list makes an empty list of none: Docker's answers have [] there.
func list[T any](in []T) []T {
	if in == nil {
		return []T{}
	}
	return in
}
