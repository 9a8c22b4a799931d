package server

import "berth/api/access"

// rules says to which verb each route belongs, and what it is about, for sockets that allow less than everything. A route that is missing
// here is refused on such sockets, and a test fails: who adds one decides.
func rules() map[string]access.Rule {
	out := map[string]access.Rule{}
	add := func(verb access.Verb, reach access.Reach, routes ...string) {
		for _, r := range routes {
			out[r] = access.Rule{Verb: verb, Reach: reach}
		}
	}
	// On a socket with a scope, Anything means: the rooms that the handler asks tell of the scope only (narrow.go).
	add(access.Ping, access.Anything, "GET /_ping", "HEAD /_ping", "GET /version")
	add(access.Read, access.Anything,
		"GET /info", "GET /events", "GET /system/df", "GET /containers/json", "GET /images/json", "GET /volumes", "GET /networks",
		"GET /berth/v1/openapi.json", "GET /berth/v1/volumes/prune", "GET /berth/v1/networks/prune", "GET /berth/v1/containers/prune", "GET /berth/v1/images")
	add(access.Read, access.Container,
		"GET /containers/{name}/json", "GET /containers/{name}/top", "GET /containers/{name}/changes", "GET /containers/{name}/stats",
		"POST /containers/{name}/wait", "GET /containers/{name}/checkpoints", "GET /berth/v1/containers/{name}/explain")
	add(access.Read, access.Execution, "GET /exec/{name}/json")
	add(access.Read, access.Volume, "GET /volumes/{name}")
	add(access.Read, access.Network, "GET /networks/{name}")
	add(access.Read, access.Picture, "GET /images/{name}/json", "GET /images/{name}/history", "GET /images/{name}/attestations", "GET /berth/v1/images/{name}/sources")
	add(access.Logs, access.Container, "GET /containers/{name}/logs", "GET /berth/v1/containers/{name}/logs")
	add(access.Files, access.Container, "GET /containers/{name}/archive", "HEAD /containers/{name}/archive", "GET /containers/{name}/export")
	add(access.Files, access.Volume, "GET /berth/v1/volumes/{name}/export")
	add(access.Files, access.Picture, "GET /images/{name}/get")
	add(access.Files, access.Closed, "GET /images/get")

	add(access.Create, access.Anything, "POST /containers/create", "POST /volumes/create", "POST /networks/create")
	add(access.Create, access.Container, "POST /containers/{name}/update", "POST /containers/{name}/rename")
	add(access.Create, access.Network, "POST /networks/{name}/connect", "POST /networks/{name}/disconnect")
	add(access.Create, access.Volume, "PUT /volumes/{name}")
	add(access.Create, access.Closed, // these make volumes of names that nobody has checked, or take ports of others
		"POST /berth/v1/containers/{name}/ports", "POST /berth/v1/containers/{name}/ports/hand-over", "POST /berth/v1/volumes/{name}/import",
		"POST /berth/v1/volumes/{name}/clone", "POST /berth/v1/volumes/{name}/snapshot", "POST /berth/v1/volumes/{name}/rename")
	add(access.Start, access.Container, "POST /containers/{name}/start", "POST /containers/{name}/unpause")
	add(access.Stop, access.Container, "POST /containers/{name}/stop", "POST /containers/{name}/restart", "POST /containers/{name}/kill", "POST /containers/{name}/pause")
	add(access.Exec, access.Container,
		"POST /containers/{name}/exec", "POST /containers/{name}/attach", "GET /containers/{name}/attach/ws", "POST /containers/{name}/resize", "PUT /containers/{name}/archive")
	add(access.Exec, access.Execution, "POST /exec/{name}/start", "POST /exec/{name}/resize")
	add(access.Remove, access.Container, "DELETE /containers/{name}", "POST /berth/v1/containers/{name}/logs/clear")
	add(access.Remove, access.Volume, "DELETE /volumes/{name}")
	add(access.Remove, access.Network, "DELETE /networks/{name}")
	add(access.Remove, access.Anything, "POST /containers/prune", "POST /volumes/prune", "POST /networks/prune")
	add(access.Remove, access.Closed, // plans in bodies may name anything
		"POST /berth/v1/containers/prune", "POST /berth/v1/volumes/prune", "POST /berth/v1/networks/prune", "POST /berth/v1/system/prune",
		"DELETE /berth/v1/trash", "DELETE /berth/v1/trash/{name}", "POST /berth/v1/trash/{name}/restore")
	add(access.Read, access.Closed, "GET /berth/v1/trash", "GET /berth/v1/system/prune")

	// Images have no owner: who replaces what a name means, or removes it, does it to everybody. A pull is what creating needs.
	add(access.Image, access.Anything, "POST /images/create", "GET /berth/v1/images/create", "GET /distribution/{name}/json", "GET /images/search", "POST /auth")
	add(access.Image, access.Closed,
		"POST /images/load", "POST /images/prune", "POST /images/{name}/tag", "POST /images/{name}/push", "DELETE /images/{name}", "POST /commit",
		"GET /berth/v1/images/prune", "POST /berth/v1/images/prune", "GET /berth/v1/images/gc", "POST /berth/v1/images/gc", "GET /berth/v1/images/{name}/push")
	add(access.Build, access.Closed, "POST /session", "POST /grpc", "POST /build", "POST /build/prune", "POST /build/cancel")

	add(access.Admin, access.Closed,
		"POST /containers/{name}/checkpoints", "DELETE /containers/{name}/checkpoints/{checkpoint}",
		"GET /plugins", "GET /plugins/privileges", "POST /plugins/pull", "POST /plugins/create", "GET /plugins/{name}/json", "DELETE /plugins/{name}",
		"POST /plugins/{name}/enable", "POST /plugins/{name}/disable", "POST /plugins/{name}/upgrade", "POST /plugins/{name}/push", "POST /plugins/{name}/set",
		"GET /swarm", "POST /swarm/init", "POST /swarm/join", "POST /swarm/leave", "POST /swarm/update", "GET /swarm/unlockkey", "POST /swarm/unlock",
		"GET /nodes", "GET /nodes/{name}", "DELETE /nodes/{name}", "POST /nodes/{name}/update",
		"GET /services", "POST /services/create", "GET /services/{name}", "DELETE /services/{name}", "POST /services/{name}/update", "GET /services/{name}/logs",
		"GET /tasks", "GET /tasks/{name}", "GET /tasks/{name}/logs",
		"GET /secrets", "POST /secrets/create", "GET /secrets/{name}", "DELETE /secrets/{name}", "POST /secrets/{name}/update",
		"GET /configs", "POST /configs/create", "GET /configs/{name}", "DELETE /configs/{name}", "POST /configs/{name}/update",
		"GET /debug/vars", "GET /debug/pprof/", "GET /debug/pprof/{name}", "POST /berth/v1/system/check", "GET /berth/v1/waits", "GET /berth/v1/reload", "POST /berth/v1/reload",
		"GET /berth/v1/kernel", "GET /berth/v1/network/rules", "GET /berth/v1/port/audit", "POST /berth/v1/images/fsck", "POST /berth/v1/shutdown",
		"GET /berth/v1/access", "POST /berth/v1/access", "GET /berth/v1/access/log", "GET /berth/v1/access/{name}", "DELETE /berth/v1/access/{name}")
	return out
}
