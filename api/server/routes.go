package server

// routes is every route of Docker's newest API, and Berth's own. What this build has not stands here too, with a sentence.
// docs/compatibility.md is made from this table.
func routes() []route {
	const (
		get, head, post, put, del = "GET", "HEAD", "POST", "PUT", "DELETE"

		noBuild   = "building images is"
		noCopy    = "copying into and out of containers is"
		noNetwork = "networks of one's own are"
		noVolume  = "volumes are"
		noSwarm   = "cluster mode is"
		noPlugin  = "plugins are"
		noPull    = "talking to registries is"
	)
	return []route{
		{method: get, path: "/containers/json", handle: containerList},
		{method: post, path: "/containers/create", handle: containerCreate, note: "fields that this build does not honour are refused by name; fields that Docker does not know are named in a warning; needs `NetworkMode` none, host or container:"},
		{method: get, path: "/containers/{name}/json", handle: containerInspect},
		{method: get, path: "/containers/{name}/top", handle: containerTop},
		{method: get, path: "/containers/{name}/logs", handle: containerLogs, stream: true},
		{method: get, path: "/containers/{name}/changes", lacks: "listing what a container changed is"},
		{method: get, path: "/containers/{name}/export", lacks: "exporting containers is"},
		{method: get, path: "/containers/{name}/stats", handle: containerStats, stream: true, note: "no `networks`: containers have no network of their own yet"},
		{method: post, path: "/containers/{name}/resize", handle: containerResize},
		{method: post, path: "/containers/{name}/start", handle: containerStart, note: "not from a checkpoint"},
		{method: post, path: "/containers/{name}/stop", handle: containerStop},
		{method: post, path: "/containers/{name}/restart", handle: containerRestart},
		{method: post, path: "/containers/{name}/kill", handle: containerKill},
		{method: post, path: "/containers/{name}/update", handle: containerUpdate},
		{method: post, path: "/containers/{name}/rename", handle: containerRename},
		{method: post, path: "/containers/{name}/pause", handle: containerPause},
		{method: post, path: "/containers/{name}/unpause", handle: containerUnpause},
		{method: post, path: "/containers/{name}/attach", handle: containerAttach, stream: true, note: "errors are JSON"},
		{method: get, path: "/containers/{name}/attach/ws", lacks: "attaching by websocket is"},
		{method: post, path: "/containers/{name}/wait", handle: containerWait, stream: true},
		{method: del, path: "/containers/{name}", handle: containerRemove},
		{method: head, path: "/containers/{name}/archive", lacks: noCopy},
		{method: get, path: "/containers/{name}/archive", lacks: noCopy},
		{method: put, path: "/containers/{name}/archive", lacks: noCopy},
		{method: post, path: "/containers/prune", handle: containerPrune},
		{method: get, path: "/containers/{name}/checkpoints", lacks: "checkpointing containers is"},
		{method: post, path: "/containers/{name}/checkpoints", lacks: "checkpointing containers is"},
		{method: del, path: "/containers/{name}/checkpoints/{checkpoint}", lacks: "checkpointing containers is"},
		{method: post, path: "/commit", lacks: "making images of containers is"},

		{method: post, path: "/containers/{name}/exec", handle: execCreate},
		{method: post, path: "/exec/{name}/start", handle: execStart, stream: true},
		{method: post, path: "/exec/{name}/resize", handle: execResize},
		{method: get, path: "/exec/{name}/json", handle: execInspect},

		{method: get, path: "/_ping", handle: ping},
		{method: head, path: "/_ping", handle: ping},
		{method: get, path: "/version", handle: version},
		{method: get, path: "/info", handle: info},
		{method: get, path: "/events", handle: events, stream: true},
		{method: get, path: "/system/df", lacks: "disk usage is"},
		{method: post, path: "/auth", lacks: noPull},
		{method: post, path: "/session", since: 31, lacks: noBuild},
		{method: post, path: "/grpc", since: 39, lacks: noBuild},

		{method: post, path: "/build", lacks: noBuild},
		{method: post, path: "/build/prune", since: 31, lacks: noBuild},
		{method: post, path: "/build/cancel", since: 39, lacks: noBuild},
		{method: get, path: "/distribution/{name}/json", since: 30, lacks: noPull},

		{method: get, path: "/volumes", lacks: noVolume},
		{method: post, path: "/volumes/create", lacks: noVolume},
		{method: get, path: "/volumes/{name}", lacks: noVolume},
		{method: put, path: "/volumes/{name}", since: 42, lacks: noVolume},
		{method: del, path: "/volumes/{name}", lacks: noVolume},
		{method: post, path: "/volumes/prune", lacks: noVolume},

		{method: get, path: "/networks", lacks: noNetwork},
		{method: get, path: "/networks/{name}", lacks: noNetwork},
		{method: del, path: "/networks/{name}", lacks: noNetwork},
		{method: post, path: "/networks/create", lacks: noNetwork},
		{method: post, path: "/networks/{name}/connect", lacks: noNetwork},
		{method: post, path: "/networks/{name}/disconnect", lacks: noNetwork},
		{method: post, path: "/networks/prune", lacks: noNetwork},

		{method: get, path: "/plugins", lacks: noPlugin},
		{method: get, path: "/plugins/privileges", lacks: noPlugin},
		{method: post, path: "/plugins/pull", lacks: noPlugin},
		{method: post, path: "/plugins/create", lacks: noPlugin},
		{method: get, path: "/plugins/{name}/json", lacks: noPlugin},
		{method: del, path: "/plugins/{name}", lacks: noPlugin},
		{method: post, path: "/plugins/{name}/enable", lacks: noPlugin},
		{method: post, path: "/plugins/{name}/disable", lacks: noPlugin},
		{method: post, path: "/plugins/{name}/upgrade", since: 26, lacks: noPlugin},
		{method: post, path: "/plugins/{name}/push", lacks: noPlugin},
		{method: post, path: "/plugins/{name}/set", lacks: noPlugin},

		{method: get, path: "/swarm", lacks: noSwarm},
		{method: post, path: "/swarm/init", lacks: noSwarm},
		{method: post, path: "/swarm/join", lacks: noSwarm},
		{method: post, path: "/swarm/leave", lacks: noSwarm},
		{method: post, path: "/swarm/update", lacks: noSwarm},
		{method: get, path: "/swarm/unlockkey", lacks: noSwarm},
		{method: post, path: "/swarm/unlock", lacks: noSwarm},
		{method: get, path: "/nodes", lacks: noSwarm},
		{method: get, path: "/nodes/{name}", lacks: noSwarm},
		{method: del, path: "/nodes/{name}", lacks: noSwarm},
		{method: post, path: "/nodes/{name}/update", lacks: noSwarm},
		{method: get, path: "/services", lacks: noSwarm},
		{method: post, path: "/services/create", lacks: noSwarm},
		{method: get, path: "/services/{name}", lacks: noSwarm},
		{method: del, path: "/services/{name}", lacks: noSwarm},
		{method: post, path: "/services/{name}/update", lacks: noSwarm},
		{method: get, path: "/services/{name}/logs", lacks: noSwarm},
		{method: get, path: "/tasks", lacks: noSwarm},
		{method: get, path: "/tasks/{name}", lacks: noSwarm},
		{method: get, path: "/tasks/{name}/logs", lacks: noSwarm},
		{method: get, path: "/secrets", lacks: noSwarm},
		{method: post, path: "/secrets/create", lacks: noSwarm},
		{method: get, path: "/secrets/{name}", lacks: noSwarm},
		{method: del, path: "/secrets/{name}", lacks: noSwarm},
		{method: post, path: "/secrets/{name}/update", lacks: noSwarm},
		{method: get, path: "/configs", since: 30, lacks: noSwarm},
		{method: post, path: "/configs/create", since: 30, lacks: noSwarm},
		{method: get, path: "/configs/{name}", since: 30, lacks: noSwarm},
		{method: del, path: "/configs/{name}", since: 30, lacks: noSwarm},
		{method: post, path: "/configs/{name}/update", since: 30, lacks: noSwarm},

		{method: get, path: "/berth/v1/openapi.json", handle: openAPI, own: true},
		{method: get, path: "/berth/v1/containers/{name}/explain", handle: explain, own: true},
		{method: get, path: "/berth/v1/kernel", handle: kernelFacilities, own: true},
		{method: post, path: "/berth/v1/shutdown", handle: shutdown, own: true},
	}
}
