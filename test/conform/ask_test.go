package conform

// An ask is a request that is right, or wrong in a way that only its author knows. Words with $ are made for each request anew: see
// stage.word. The operation says which description it is measured by; from and to bound the versions it is for.
type ask struct {
	op     string
	url    string // below the version
	body   string // JSON; "tar:NAME" one of the archives
	head   string // "Name: value"
	want   int
	from   int // 0: since the beginning
	to     int // 0: until the newest
	note   string
	stream bool // only the first line of the answer is read
	noAuto bool // nothing further is made from it
}

// asks begin, for each operation, with the one from which further requests are made.
var asks = []ask{
	// Containers.
	{op: "GET /containers/json", url: "/containers/json?all=1&size=1&filters=" + mine, want: 200},
	{op: "GET /containers/json", url: "/containers/json?limit=3", want: 200},
	{op: "GET /containers/json", url: "/containers/json?filters=" + `{"status":["flying"]}`, want: 400},
	{op: "GET /containers/json", url: "/containers/json?filters=" + `{"health":["well"]}`, want: 400},
	{op: "GET /containers/json", url: "/containers/json?filters=" + `{"exited":["x"]}`, want: 400},
	{op: "GET /containers/json", url: "/containers/json?filters=" + `{"before":["no-such-thing"]}`, want: 404, note: "a container to compare with is not there"},

	{op: "POST /containers/create", url: "/containers/create?name=$name", body: `{"Image":"$box","Labels":{"conform":"$run"},"ExposedPorts":{"80/tcp":{}},"HostConfig":{"Memory":67108864,"PortBindings":{"80/tcp":[{"HostPort":"0"}]}}}`, want: 201},
	{op: "POST /containers/create", url: "/containers/create?name=$name", body: `{"Image":"no-such-image"}`, want: 404},
	{op: "POST /containers/create", url: "/containers/create?name=$webname", body: `{"Image":"$box"}`, want: 409},
	{op: "POST /containers/create", url: "/containers/create?name=a%20b", body: `{"Image":"$box"}`, want: 400},
	{op: "POST /containers/create", url: "/containers/create", body: `{"Image":"$box","HostConfig":{"Memory":1}}`, want: 400},
	{op: "POST /containers/create", url: "/containers/create", body: `{"Image":"$box","HostConfig":{"RestartPolicy":{"Name":"perhaps"}}}`, want: 400},
	{op: "POST /containers/create", url: "/containers/create", body: `{"Image":"$box","HostConfig":{"Binds":["relative:"]}}`, want: 400},
	{op: "POST /containers/create", url: "/containers/create", body: `{"Image":"$box","HostConfig":{"NetworkMode":"container:"}}`, want: 400},
	{op: "POST /containers/create", url: "/containers/create", body: `{"Image":"$box","HostConfig":{"Memory":"much"}}`, want: 400},
	{op: "POST /containers/create", url: "/containers/create", body: `{"Image":"$box","HostConfig":{"IpcMode":"container:no-such-thing"}}`, want: 400},
	{op: "POST /containers/create", url: "/containers/create", body: `{"Image":"$box","HostConfig":{"PidMode":"container:no-such-thing"}}`, want: 400},
	{op: "POST /containers/create", url: "/containers/create?name=$name&platform=linux/s390x", body: `{"Image":"$box"}`, want: 404, from: 41},

	{op: "GET /containers/{id}/json", url: "/containers/$web/json?size=1", want: 200},
	{op: "GET /containers/{id}/json", url: "/containers/$new/json", want: 200},
	{op: "GET /containers/{id}/json", url: "/containers/$over/json", want: 200},
	{op: "GET /containers/{id}/json", url: "/containers/$paused/json", want: 200},
	{op: "GET /containers/{id}/top", url: "/containers/$web/top?ps_args=-eo%20pid,comm", want: 200},
	{op: "GET /containers/{id}/top", url: "/containers/$web/top", want: 200},
	{op: "GET /containers/{id}/top", url: "/containers/$new/top", want: 409},
	{op: "GET /containers/{id}/logs", url: "/containers/$over/logs?stdout=1&stderr=1&timestamps=1&tail=5", want: 200},
	{op: "GET /containers/{id}/logs", url: "/containers/$over/logs", want: 400, note: "neither stream"},
	{op: "GET /containers/{id}/logs", url: "/containers/$over/logs?stdout=1&since=yesterday", want: 400},
	{op: "GET /containers/{id}/changes", url: "/containers/$over/changes", want: 200},
	{op: "GET /containers/{id}/export", url: "/containers/$new/export", want: 200},
	{op: "GET /containers/{id}/stats", url: "/containers/$web/stats?stream=0&one-shot=1", want: 200, from: 41},
	{op: "GET /containers/{id}/stats", url: "/containers/$web/stats?stream=0", want: 200, noAuto: true},
	{op: "GET /containers/{id}/stats", url: "/containers/$web/stats", want: 200, stream: true, noAuto: true},
	{op: "GET /containers/{id}/stats", url: "/containers/$new/stats?stream=0&one-shot=1", want: 200, from: 41},
	{op: "POST /containers/{id}/resize", url: "/containers/$web/resize?h=20&w=90", want: 200},
	{op: "POST /containers/{id}/resize", url: "/containers/$new/resize?h=20&w=90", want: 409},
	{op: "POST /containers/{id}/resize", url: "/containers/$web/resize?h=20", want: 400},
	{op: "POST /containers/{id}/start", url: "/containers/$new/start", want: 204},
	{op: "POST /containers/{id}/start", url: "/containers/$up/start", want: 304},
	{op: "POST /containers/{id}/start", url: "/containers/$paused/start", want: 409},
	{op: "POST /containers/{id}/start", url: "/containers/$nocmd/start", want: 400, note: "a program that is not there"},
	{op: "POST /containers/{id}/start", url: "/containers/$new/start", body: `{"Memory":10000000}`, want: 400},
	{op: "POST /containers/{id}/stop", url: "/containers/$up/stop?t=0", want: 204},
	{op: "POST /containers/{id}/stop", url: "/containers/$new/stop", want: 304},
	{op: "POST /containers/{id}/stop", url: "/containers/$over/stop", want: 304},
	{op: "POST /containers/{id}/restart", url: "/containers/$up/restart?t=0", want: 204},
	{op: "POST /containers/{id}/restart", url: "/containers/$over/restart?t=0", want: 204},
	{op: "POST /containers/{id}/kill", url: "/containers/$up/kill", want: 204},
	{op: "POST /containers/{id}/kill", url: "/containers/$up/kill?signal=USR1", want: 204},
	{op: "POST /containers/{id}/kill", url: "/containers/$new/kill", want: 409},
	{op: "POST /containers/{id}/kill", url: "/containers/$up/kill?signal=WAVE", want: 400},
	{op: "POST /containers/{id}/update", url: "/containers/$new/update", body: `{"CpuShares":512,"RestartPolicy":{"Name":"no"}}`, want: 200},
	{op: "POST /containers/{id}/update", url: "/containers/$new/update", body: `{"Memory":1}`, want: 400},
	{op: "POST /containers/{id}/update", url: "/containers/$new/update", body: `{"RestartPolicy":{"Name":"perhaps"}}`, want: 400},
	{op: "POST /containers/{id}/rename", url: "/containers/$new/rename?name=$name", want: 204},
	{op: "POST /containers/{id}/rename", url: "/containers/$new/rename?name=$webname", want: 409},
	{op: "POST /containers/{id}/rename", url: "/containers/$new/rename?name=a%20b", want: 400},
	{op: "POST /containers/{id}/rename", url: "/containers/$new/rename", want: 400},
	{op: "POST /containers/{id}/pause", url: "/containers/$up/pause", want: 204},
	{op: "POST /containers/{id}/pause", url: "/containers/$new/pause", want: 409},
	{op: "POST /containers/{id}/pause", url: "/containers/$paused/pause", want: 409},
	{op: "POST /containers/{id}/unpause", url: "/containers/$paused/unpause", want: 204},
	{op: "POST /containers/{id}/unpause", url: "/containers/$up/unpause", want: 500, note: "Docker's own word for it is no conflict"},
	{op: "POST /containers/{id}/attach", url: "/containers/$over/attach?stdout=1&stderr=1&logs=1", want: 200},
	{op: "POST /containers/{id}/attach", url: "/containers/$over/attach?stdout=1&logs=1", head: "Upgrade: tcp", want: 101},
	{op: "POST /containers/{id}/attach", url: "/containers/$paused/attach?stdout=1&stream=1", want: 409, noAuto: true},
	{op: "POST /containers/{id}/attach", url: "/containers/$up/attach?stdout=1&stream=1&detachKeys=nokey", want: 400, noAuto: true},
	{op: "GET /containers/{id}/attach/ws", url: "/containers/$over/attach/ws?stdout=1&logs=1", head: websocketHead, want: 101},
	{op: "GET /containers/{id}/attach/ws", url: "/containers/$paused/attach/ws?stdout=1&stream=1", head: websocketHead, want: 409, noAuto: true},
	{op: "POST /containers/{id}/wait", url: "/containers/$over/wait", want: 200},
	{op: "POST /containers/{id}/wait", url: "/containers/$over/wait?condition=not-running", want: 200, from: 30},
	{op: "POST /containers/{id}/wait", url: "/containers/$over/wait?condition=sunrise", want: 400, from: 30},
	{op: "DELETE /containers/{id}", url: "/containers/$new", want: 204},
	{op: "DELETE /containers/{id}", url: "/containers/$up?force=1&v=1", want: 204},
	{op: "DELETE /containers/{id}", url: "/containers/$up", want: 409},
	{op: "DELETE /containers/{id}", url: "/containers/$paused", want: 409},
	{op: "HEAD /containers/{id}/archive", url: "/containers/$new/archive?path=/etc", want: 200},
	{op: "HEAD /containers/{id}/archive", url: "/containers/$new/archive?path=/nowhere", want: 404},
	{op: "HEAD /containers/{id}/archive", url: "/containers/$new/archive", want: 400},
	{op: "GET /containers/{id}/archive", url: "/containers/$new/archive?path=/etc/passwd", want: 200},
	{op: "GET /containers/{id}/archive", url: "/containers/$new/archive?path=/nowhere", want: 404},
	{op: "GET /containers/{id}/archive", url: "/containers/$new/archive", want: 400},
	{op: "PUT /containers/{id}/archive", url: "/containers/$new/archive?path=/tmp", body: "tar:file", want: 200},
	{op: "PUT /containers/{id}/archive", url: "/containers/$new/archive?path=/nowhere", body: "tar:file", want: 404},
	{op: "PUT /containers/{id}/archive", url: "/containers/$new/archive?path=/etc/passwd", body: "tar:file", want: 400, note: "no directory"},
	{op: "PUT /containers/{id}/archive", url: "/containers/$readonly/archive?path=/tmp", body: "tar:file", want: 403},
	{op: "POST /containers/prune", url: "/containers/prune?filters=" + mine, want: 200},
	{op: "POST /containers/prune", url: "/containers/prune?filters=" + `{"until":["whenever"]}`, want: 400},
	{op: "POST /commit", url: "/commit?container=$new&repo=$name&comment=c&author=a&changes=CMD%20true", want: 201, noAuto: true},
	{op: "POST /commit", url: "/commit?container=no-such-thing", want: 404},
	{op: "POST /commit", url: "/commit?container=$new&repo=UPPER", want: 400},

	// Execs.
	{op: "POST /containers/{id}/exec", url: "/containers/$web/exec", body: `{"AttachStdout":true,"Cmd":["true"],"Env":["A=b"],"WorkingDir":"/tmp"}`, want: 201, from: 35},
	{op: "POST /containers/{id}/exec", url: "/containers/$web/exec", body: `{"AttachStdout":true,"Cmd":["true"]}`, want: 201},
	{op: "POST /containers/{id}/exec", url: "/containers/$new/exec", body: `{"Cmd":["true"]}`, want: 409},
	{op: "POST /containers/{id}/exec", url: "/containers/$paused/exec", body: `{"Cmd":["true"]}`, want: 409},
	{op: "POST /containers/{id}/exec", url: "/containers/$web/exec", body: `{"Cmd":[]}`, want: 400},
	{op: "POST /exec/{id}/start", url: "/exec/$exec/start", body: `{"Detach":true}`, want: 200},
	{op: "POST /exec/{id}/start", url: "/exec/$exec/start", body: `{"Detach":false,"Tty":false}`, want: 200},
	{op: "POST /exec/{id}/start", url: "/exec/$exec/start", body: `{}`, head: "Upgrade: tcp", want: 101, note: "listed nowhere, but it is what every client asks for"},
	{op: "POST /exec/{id}/start", url: "/exec/$running/start", body: `{"Detach":true}`, want: 409},
	{op: "POST /exec/{id}/resize", url: "/exec/$running/resize?h=20&w=90", want: 200},
	{op: "POST /exec/{id}/resize", url: "/exec/$running/resize?h=20", want: 400},
	{op: "GET /exec/{id}/json", url: "/exec/$exec/json", want: 200},
	{op: "GET /exec/{id}/json", url: "/exec/$running/json", want: 200},

	// Images.
	{op: "GET /images/json", url: "/images/json", want: 200},
	{op: "GET /images/json", url: "/images/json?all=1&digests=1&filters=" + `{"reference":["$image"]}`, want: 200},
	{op: "GET /images/json", url: "/images/json?shared-size=1", want: 200, from: 42},
	{op: "GET /images/json", url: "/images/json?filters=" + `{"dangling":["perhaps"]}`, want: 400},
	{op: "POST /images/create", url: "/images/create?fromSrc=-&repo=$name&message=m&changes=CMD%20true", body: "tar:file", want: 200, noAuto: true},
	{op: "POST /images/create", url: "/images/create?fromImage=UPPER", want: 400},
	{op: "POST /images/create", url: "/images/create?fromImage=$registry/box&tag=one", want: 200, noAuto: true},
	{op: "POST /images/create", url: "/images/create?fromImage=$registry/nothing&tag=one", want: 404},
	{op: "GET /images/{name}/json", url: "/images/$box/json", want: 200},
	{op: "GET /images/{name}/json", url: "/images/$box/json?manifests=1", want: 200, from: 48},
	{op: "GET /images/{name}/json", url: "/images/UPPER/json", want: 400},
	{op: "GET /images/{name}/history", url: "/images/$box/history", want: 200},
	{op: "GET /images/{name}/attestations", url: "/images/$box/attestations", want: 200},
	{op: "POST /images/{name}/push", url: "/images/$pushed/push", head: "X-Registry-Auth: e30=", want: 200},
	{op: "POST /images/{name}/tag", url: "/images/$box/tag?repo=$name&tag=one", want: 201},
	{op: "POST /images/{name}/tag", url: "/images/$box/tag?repo=UPPER&tag=one", want: 400},
	{op: "DELETE /images/{name}", url: "/images/$image", want: 200},
	{op: "DELETE /images/{name}", url: "/images/$used", want: 409, note: "a running container uses it"},
	{op: "GET /images/search", url: "/images/search?term=127.0.0.1:5000/box", want: 200, noAuto: true},
	{op: "GET /images/search", url: "/images/search?term=box&limit=1000", want: 400},
	{op: "GET /images/search", url: "/images/search?term=box&filters=" + `{"is-official":["perhaps"]}`, want: 400},
	{op: "POST /images/prune", url: "/images/prune?filters=" + `{"label":["conform=$run"],"dangling":["1"]}`, want: 200},
	{op: "POST /images/prune", url: "/images/prune?filters=" + `{"dangling":["perhaps"]}`, want: 400},
	{op: "GET /images/{name}/get", url: "/images/$tiny/get", want: 200},
	{op: "GET /images/get", url: "/images/get?names=$tiny", want: 200},
	{op: "POST /images/load", url: "/images/load?quiet=1", body: "tar:image", want: 200},
	{op: "GET /distribution/{name}/json", url: "/distribution/$registry/box:one/json", want: 200},
	{op: "GET /distribution/{name}/json", url: "/distribution/UPPER/json", want: 400},

	// The engine.
	{op: "GET /info", url: "/info", want: 200},
	{op: "GET /version", url: "/version", want: 200},
	{op: "GET /_ping", url: "/_ping", want: 200},
	{op: "HEAD /_ping", url: "/_ping", want: 200},
	{op: "GET /events", url: "/events?since=$began&until=$now&filters=" + `{"type":["container"],"label":["conform=$run"]}`, want: 200},
	{op: "GET /events", url: "/events?since=$began&until=$now", want: 200, stream: true},
	{op: "GET /events", url: "/events?since=yesterday-ish&until=1", want: 400},
	{op: "GET /system/df", url: "/system/df", want: 200},
	{op: "GET /system/df", url: "/system/df?verbose=1", want: 200, from: 52},
	{op: "GET /system/df", url: "/system/df?type=volume", want: 200, from: 42},
	{op: "GET /system/df", url: "/system/df?type=moon", want: 400, from: 42},
	{op: "POST /auth", url: "/auth", body: `{"username":"ann","password":"x","serveraddress":"http://$registry"}`, want: 200, noAuto: true},
	{op: "POST /build/prune", url: "/build/prune", want: 200},

	// Volumes.
	{op: "GET /volumes", url: "/volumes?filters=" + mine, want: 200},
	{op: "GET /volumes", url: "/volumes", want: 200},
	{op: "POST /volumes/create", url: "/volumes/create", body: `{"Name":"$name","Labels":{"conform":"$run"}}`, want: 201},
	{op: "POST /volumes/create", url: "/volumes/create", body: `{}`, want: 201},
	{op: "POST /volumes/create", url: "/volumes/create", body: `{"Name":"a b"}`, want: 400},
	{op: "POST /volumes/create", url: "/volumes/create", body: `{"Name":"$name","Driver":"no-such-driver"}`, want: 404},
	{op: "GET /volumes/{name}", url: "/volumes/$volume", want: 200},
	{op: "PUT /volumes/{name}", url: "/volumes/$volume?version=1", body: `{}`, want: 503, noAuto: true, note: "there is no swarm"},
	{op: "DELETE /volumes/{name}", url: "/volumes/$volume", want: 204},
	{op: "DELETE /volumes/{name}", url: "/volumes/$busyvolume", want: 409},
	{op: "POST /volumes/prune", url: "/volumes/prune?filters=" + mine, want: 200},

	// Networks.
	{op: "GET /networks", url: "/networks", want: 200},
	{op: "GET /networks", url: "/networks?filters=" + mine, want: 200},
	{op: "GET /networks", url: "/networks?filters=" + `{"type":["odd"]}`, want: 400},
	{op: "GET /networks/{id}", url: "/networks/$network", want: 200},
	{op: "GET /networks/{id}", url: "/networks/$busynetwork?verbose=1", want: 200},
	{op: "GET /networks/{id}", url: "/networks/bridge?scope=local", want: 200},
	{op: "GET /networks/{id}", url: "/networks/host", want: 200},
	{op: "POST /networks/create", url: "/networks/create", body: `{"Name":"$name","Driver":"bridge","Labels":{"conform":"$run"},"Options":{"com.docker.network.bridge.enable_icc":"true"}}`, want: 201},
	{op: "POST /networks/create", url: "/networks/create", body: `{"Name":"bridge","CheckDuplicate":true}`, want: 403, note: "a name of the engine's"},
	{op: "POST /networks/create", url: "/networks/create", body: `{"Name":"$netname","CheckDuplicate":true}`, want: 409},
	{op: "POST /networks/create", url: "/networks/create", body: `{"Name":""}`, want: 400},
	{op: "POST /networks/create", url: "/networks/create", body: `{"Name":"$name","Driver":"no-such-driver"}`, want: 404},
	{op: "POST /networks/create", url: "/networks/create", body: `{"Name":"$name","IPAM":{"Config":[{"Subnet":"10.0.0.0/99"}]}}`, want: 400},
	{op: "DELETE /networks/{id}", url: "/networks/$network", want: 204},
	{op: "DELETE /networks/{id}", url: "/networks/bridge", want: 403},
	{op: "DELETE /networks/{id}", url: "/networks/$busynetwork", want: 403},
	{op: "POST /networks/{id}/connect", url: "/networks/$network/connect", body: `{"Container":"$new","EndpointConfig":{"Aliases":["one"]}}`, want: 200},
	{op: "POST /networks/{id}/connect", url: "/networks/$network/connect", body: `{"Container":"$up"}`, want: 200},
	{op: "POST /networks/{id}/connect", url: "/networks/$network/connect", body: `{"Container":"no-such-thing"}`, want: 404},
	{op: "POST /networks/{id}/connect", url: "/networks/$busynetwork/connect", body: `{"Container":"$joined"}`, want: 403, note: "it is there already"},
	{op: "POST /networks/{id}/disconnect", url: "/networks/$busynetwork/disconnect", body: `{"Container":"$joined","Force":true}`, want: 200, noAuto: true},
	{op: "POST /networks/{id}/disconnect", url: "/networks/$network/disconnect", body: `{"Container":"no-such-thing"}`, want: 404},
	{op: "POST /networks/{id}/disconnect", url: "/networks/$network/disconnect", body: `{"Container":"$new"}`, want: 403, note: "it is not there", noAuto: true},
	{op: "POST /networks/prune", url: "/networks/prune?filters=" + mine, want: 200},

	// Plugins. One that runs is in test/script/testdata/registry/plugin.txtar.
	{op: "GET /plugins", url: "/plugins", want: 200},
	{op: "GET /plugins", url: "/plugins?filters=" + `{"enabled":["perhaps"]}`, want: 400},
	{op: "GET /plugins/privileges", url: "/plugins/privileges?remote=$pluginremote", want: 200},
	{op: "POST /plugins/pull", url: "/plugins/pull?remote=$pluginremote&name=$name", body: `[]`, want: 200, noAuto: true},
	{op: "POST /plugins/create", url: "/plugins/create?name=$name", body: "tar:plugin", want: 204, noAuto: true},
	{op: "GET /plugins/{name}/json", url: "/plugins/$plugin/json", want: 200},
	{op: "DELETE /plugins/{name}", url: "/plugins/$plugin", want: 200},
	{op: "POST /plugins/{name}/enable", url: "/plugins/$plugin/enable?timeout=1", want: 500, note: "its program is not there"},
	{op: "POST /plugins/{name}/disable", url: "/plugins/$plugin/disable", want: 409, note: "it is not enabled"},
	{op: "POST /plugins/{name}/upgrade", url: "/plugins/$plugin/upgrade?remote=$pluginremote", body: `[]`, want: 200, noAuto: true},
	{op: "POST /plugins/{name}/push", url: "/plugins/$pluginpushed/push", want: 200},
	{op: "POST /plugins/{name}/set", url: "/plugins/$plugin/set", body: `["GREETING=hi"]`, want: 204},
	{op: "POST /plugins/{name}/set", url: "/plugins/$plugin/set", body: `["NOBODY=hi"]`, want: 500},
}

// mine are the filters for what the same version's requests have made.
const mine = `{"label":["conform=$run"]}`

const websocketHead = "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="

// unasked are operations of the rooms asked for that have no good request here, with the reason.
var unasked = map[string]string{
	"POST /build":   "images are not built yet",
	"POST /session": "images are not built yet",
}

// rooms are the tags whose operations are asked by the table.
var rooms = map[string]bool{
	"Container": true, "Exec": true, "Image": true, "System": true, "Volume": true, "Network": true, "Plugin": true, "Distribution": true, "Session": true,
	"Session (experimental)": true,
}

// cluster are the tags of a swarm's operations, each of which is asked once.
var cluster = map[string]bool{"Swarm": true, "Node": true, "Service": true, "Task": true, "Secret": true, "Config": true}
