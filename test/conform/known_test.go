package conform

// A deviation is known: an answer is not what a description says, and should be as it is.
type deviation struct {
	why      string
	op       string
	text     string // what is found
	from, to int    // versions
}

func (d *deviation) covers(f *finding, minor int) bool {
	return d.op == f.op && d.text == f.text && minor >= d.from && minor <= d.to
}

// The reasons. What is said of dockerd was seen with 26.1, of which the same was asked (-against).
const (
	later      = "a field that came with a later version; dockerd tells it to clients of old versions too"
	younger    = "a field that came after 1.45, which no dockerd at hand speaks; Docker takes no such field out of older answers"
	unfinished = "the description of this part was not finished before 1.32; dockerd's answer is the later one"
	wrong      = "the description is wrong; dockerd answers like this"
	misspelt   = "the description has the names with capitals, which no version ever sent"
	pluginType = "the description says an object, and Docker writes and reads \"prefix.capability/version\""
	nulls      = "not said to be nullable; dockerd has null there too"
	code       = "the status is not listed here, but it is what dockerd answers"
	upgrade    = "listed nowhere, but what a client gets that asks to upgrade"
	progress   = "204 is listed, but Docker's clients read progress from the answer, whose status is 200"
	plain      = "listed as JSON; dockerd answers a refused attachment in plain text"
	oldEvent   = "a field of 1.21 that dockerd sends until 1.51, described or not"
	eventMedia = "what a client that does not say what it accepts has always got"
	dfBoth     = "1.52 answers in the old form and the new one, as its change log says"
)

var known = []deviation{
	{later, "DELETE /plugins/{name}", "200.Config.IpcHost: unknown", 25, 28},
	{later, "DELETE /plugins/{name}", "200.Config.PidHost: unknown", 25, 28},
	{later, "GET /containers/json", "200[*].NetworkSettings.Networks.*.DNSNames: unknown", 25, 43},
	{later, "GET /containers/json", "200[*].NetworkSettings.Networks.*.DriverOpts: unknown", 25, 31},
	{later, "GET /containers/{id}/json", "200.HostConfig.CgroupnsMode: unknown", 25, 40},
	{later, "GET /containers/{id}/json", "200.HostConfig.DeviceCgroupRules: unknown", 25, 27},
	{later, "GET /containers/{id}/json", "200.HostConfig.DeviceRequests: unknown", 25, 39},
	{later, "GET /containers/{id}/json", "200.HostConfig.MaskedPaths: unknown", 25, 37},
	{later, "GET /containers/{id}/json", "200.HostConfig.ReadonlyPaths: unknown", 25, 37},
	{later, "GET /containers/{id}/json", "200.NetworkSettings.Networks.*.DNSNames: unknown", 32, 43},
	{later, "GET /containers/{id}/json", "200.Platform: unknown", 25, 39},
	{later, "GET /events", "200.scope: unknown", 25, 39},
	{later, "GET /exec/{id}/json", "200.CanRemove: unknown", 25, 35},
	{later, "GET /exec/{id}/json", "200.DetachKeys: unknown", 25, 35},
	{later, "GET /images/{name}/json", "200.Metadata: unknown", 25, 30},
	{later, "GET /info", "200.CDISpecDirs: unknown", 25, 43},
	{later, "GET /info", "200.CgroupVersion: unknown", 25, 40},
	{later, "GET /info", "200.DefaultAddressPools: unknown", 25, 40},
	{later, "GET /info", "200.OSVersion: unknown", 25, 40},
	{later, "GET /info", "200.PidsLimit: unknown", 25, 39},
	{later, "GET /info", "200.Warnings: unknown", 25, 38},
	{later, "GET /networks", "200[*].Attachable: unknown", 25, 26},
	{later, "GET /networks", "200[*].ConfigFrom: unknown", 25, 40},
	{later, "GET /networks", "200[*].ConfigOnly: unknown", 25, 40},
	{later, "GET /networks", "200[*].Containers.*.Name: unknown", 25, 27},
	{later, "GET /networks", "200[*].Ingress: unknown", 25, 28},
	{later, "GET /networks/{id}", "200.Attachable: unknown", 25, 26},
	{later, "GET /networks/{id}", "200.ConfigFrom: unknown", 25, 40},
	{later, "GET /networks/{id}", "200.ConfigOnly: unknown", 25, 40},
	{later, "GET /networks/{id}", "200.Containers.*.Name: unknown", 25, 29},
	{later, "GET /networks/{id}", "200.Ingress: unknown", 25, 28},
	{later, "GET /plugins", "200[*].Config.IpcHost: unknown", 25, 28},
	{later, "GET /plugins", "200[*].Config.PidHost: unknown", 25, 28},
	{later, "GET /plugins/{name}/json", "200.Config.IpcHost: unknown", 25, 28},
	{later, "GET /plugins/{name}/json", "200.Config.PidHost: unknown", 25, 28},
	{later, "GET /system/df", "200.BuildCache: unknown", 25, 38},
	{later, "GET /system/df", "200.Containers[*].NetworkSettings.Networks.*.DNSNames: unknown", 40, 43},
	{later, "GET /system/df", "200.Volumes[*].CreatedAt: unknown", 25, 30},
	{later, "GET /version", "200.Components: unknown", 25, 34},
	{later, "GET /version", "200.Platform: unknown", 25, 34},
	{later, "GET /volumes", "200.Volumes[*].CreatedAt: unknown", 25, 30},
	{later, "GET /volumes/{name}", "200.CreatedAt: unknown", 25, 30},
	{later, "POST /build/prune", "200.CachesDeleted: unknown", 31, 38},
	{later, "POST /networks/prune", "200.NetworksDeleted: unknown", 25, 25},
	{later, "POST /volumes/create", "201.CreatedAt: unknown", 25, 30},
	{younger, "GET /containers/json", "200[*].NetworkSettings.Networks.*.GwPriority: unknown", 25, 47},
	{younger, "GET /containers/{id}/json", "200.NetworkSettings.Networks.*.GwPriority: unknown", 32, 47},
	{younger, "GET /networks", "200[*].EnableIPv4: unknown", 25, 46},
	{younger, "GET /networks/{id}", "200.EnableIPv4: unknown", 25, 46},
	{younger, "GET /system/df", "200.Containers[*].NetworkSettings.Networks.*.GwPriority: unknown", 40, 47},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.EndpointID: unknown", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.GlobalIPv6Address: unknown", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.GlobalIPv6PrefixLen: unknown", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.HairpinMode: unknown", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.IPAddress: unknown", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.IPv6Gateway: unknown", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.LinkLocalIPv6Address: unknown", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.LinkLocalIPv6PrefixLen: unknown", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.Networks: unknown", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.Ports: object instead of array", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.SandboxID: unknown", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.SandboxKey: unknown", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.SecondaryIPAddresses: unknown", 25, 31},
	{unfinished, "GET /containers/{id}/json", "200.NetworkSettings.SecondaryIPv6Addresses: unknown", 25, 31},
	{unfinished, "GET /info", "200.BridgeNfIp6tables: unknown", 25, 31},
	{unfinished, "GET /info", "200.BridgeNfIptables: unknown", 25, 31},
	{unfinished, "GET /info", "200.CPUSet: unknown", 25, 31},
	{unfinished, "GET /info", "200.CPUShares: unknown", 25, 31},
	{unfinished, "GET /info", "200.CgroupDriver: unknown", 25, 31},
	{unfinished, "GET /info", "200.ContainerdCommit: unknown", 25, 31},
	{unfinished, "GET /info", "200.DefaultRuntime: unknown", 25, 31},
	{unfinished, "GET /info", "200.GenericResources: unknown", 25, 31},
	{unfinished, "GET /info", "200.InitBinary: unknown", 25, 31},
	{unfinished, "GET /info", "200.InitCommit: unknown", 25, 31},
	{unfinished, "GET /info", "200.Isolation: unknown", 25, 31},
	{unfinished, "GET /info", "200.LiveRestoreEnabled: unknown", 25, 31},
	{unfinished, "GET /info", "200.LoggingDriver: unknown", 25, 31},
	{unfinished, "GET /info", "200.Plugins.Authorization: unknown", 25, 31},
	{unfinished, "GET /info", "200.Plugins.Log: unknown", 25, 29},
	{unfinished, "GET /info", "200.RegistryConfig.AllowNondistributableArtifactsCIDRs: unknown", 25, 31},
	{unfinished, "GET /info", "200.RegistryConfig.AllowNondistributableArtifactsHostnames: unknown", 25, 31},
	{unfinished, "GET /info", "200.RegistryConfig.Mirrors: unknown", 25, 31},
	{unfinished, "GET /info", "200.RuncCommit: unknown", 25, 31},
	{unfinished, "GET /info", "200.Runtimes: unknown", 25, 31},
	{unfinished, "GET /info", "200.SecurityOptions: unknown", 25, 31},
	{unfinished, "GET /info", "200.Swarm: unknown", 25, 31},
	{wrong, "GET /containers/{id}/json", "200.Config.Volumes./anonymous: unknown", 25, 36},
	{wrong, "GET /containers/{id}/json", "200.HostConfig.NanoCpus: unknown", 27, 27},
	{wrong, "GET /containers/{id}/json", "200.HostConfig.PortBindings.*: array instead of object", 25, 34},
	{wrong, "GET /containers/{id}/json", `200.HostConfig.RestartPolicy.Name: "no" is none of ["" "always" "unless-stopped" "on-failure"]`, 30, 39},
	{wrong, "GET /containers/{id}/json", `200.HostConfig.RestartPolicy.Name: "no" is none of ["always" "unless-stopped" "on-failure"]`, 25, 29},
	{wrong, "GET /system/df", "200.Containers[*]: object instead of array", 25, 39},
	{misspelt, "GET /distribution/{name}/json", "200.Descriptor.digest: unknown", 30, 39},
	{misspelt, "GET /distribution/{name}/json", "200.Descriptor.mediaType: unknown", 30, 39},
	{misspelt, "GET /distribution/{name}/json", "200.Descriptor.size: unknown", 30, 39},
	{misspelt, "GET /distribution/{name}/json", "200.Platforms[*].architecture: unknown", 30, 39},
	{misspelt, "GET /distribution/{name}/json", "200.Platforms[*].os: unknown", 30, 39},
	{pluginType, "DELETE /plugins/{name}", "200.Config.Interface.Types[*]: string instead of object", 25, 51},
	{pluginType, "GET /plugins", "200[*].Config.Interface.Types[*]: string instead of object", 25, 51},
	{pluginType, "GET /plugins/{name}/json", "200.Config.Interface.Types[*]: string instead of object", 25, 51},
	{nulls, "GET /containers/{id}/json", "200.ExecIDs: null instead of string", 25, 37},
	{nulls, "GET /containers/{id}/json", "200.HostConfig.MemorySwappiness: null instead of integer", 25, 56},
	{nulls, "GET /containers/{id}/json", "200.HostConfig.PidsLimit: null instead of integer", 25, 38},
	{nulls, "GET /exec/{id}/json", "200.ExitCode: null instead of integer", 25, 56},
	{code, "DELETE /containers/{id}", "409 is not listed", 25, 26},
	{code, "DELETE /networks/{id}", "403 is not listed", 25, 29},
	{code, "GET /containers/json", "404 is not listed", 25, 56},
	{code, "GET /containers/{id}/attach/ws", "409 is not listed", 25, 56},
	{code, "GET /containers/{id}/top", "409 is not listed", 25, 56},
	{code, "GET /distribution/{name}/json", "404 is not listed", 30, 56},
	{code, "GET /images/{name}/get", "404 is not listed", 25, 56},
	{code, "POST /containers/{id}/attach", "409 is not listed", 25, 56},
	{code, "POST /containers/{id}/kill", "409 is not listed", 25, 36},
	{code, "POST /containers/{id}/pause", "409 is not listed", 25, 56},
	{code, "POST /containers/{id}/resize", "409 is not listed", 25, 56},
	{code, "POST /containers/{id}/start", "409 is not listed", 25, 56},
	{code, "POST /networks/create", "409 is not listed", 25, 56},
	{code, "POST /plugins/{name}/disable", "404 is not listed", 25, 26},
	{code, "POST /plugins/{name}/disable", "409 is not listed", 25, 56},
	{code, "POST /plugins/{name}/enable", "404 is not listed", 25, 26},
	{code, "POST /volumes/create", "404 is not listed", 25, 56},
	{upgrade, "POST /exec/{id}/start", "101 is not listed", 25, 56},
	{progress, "POST /plugins/pull", "200 is not listed", 25, 56},
	{progress, "POST /plugins/{name}/upgrade", "200 is not listed", 26, 56},
	{plain, "POST /containers/{id}/attach", "400: no JSON: invalid character 'I' looking for beginning of value", 25, 56},
	{plain, "POST /containers/{id}/attach", "404: no JSON: invalid character 'N' looking for beginning of value", 25, 56},
	{plain, "POST /containers/{id}/attach", "409: no JSON: invalid character 'c' looking for beginning of value", 25, 56},
	{oldEvent, "GET /events", "200.from: unknown", 25, 51},
	{oldEvent, "GET /events", "200.id: unknown", 25, 51},
	{oldEvent, "GET /events", "200.status: unknown", 25, 51},
	{eventMedia, "GET /events", `200 is "application/json", listed are ["application/jsonl" "application/x-ndjson" "application/json-seq"]`, 53, 56},
	{eventMedia, "GET /events", `200 is "application/json", listed are ["application/x-ndjson" "application/json-seq"]`, 52, 52},
	{dfBoth, "GET /system/df", "200.BuildCache: unknown", 52, 52},
	{dfBoth, "GET /system/df", "200.Containers: unknown", 52, 52},
	{dfBoth, "GET /system/df", "200.Images: unknown", 52, 52},
	{dfBoth, "GET /system/df", "200.LayersSize: unknown", 52, 52},
	{dfBoth, "GET /system/df", "200.Volumes: unknown", 52, 52},
}
