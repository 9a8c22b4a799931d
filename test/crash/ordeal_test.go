package crash

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// An ordeal is a sequence of verbs of which each changes facts in a known way. Whatever happens to the engine while it goes on,
// what was acknowledged must be there afterwards; the one verb that was under way has happened or has not.

// facts are what clients see of an engine: "container NAME", "image REF", "volume NAME", "network NAME" and numbers of nameless things.
type facts map[string]string

// verb is one step of an ordeal.
type verb struct {
	name   string
	change facts // what it makes of facts; "" for what is gone
	// via are values that a fact may have on its way, for as long as the verb has not been acknowledged.
	via map[string][]string
	// partly: it is a number of changes that may be done one by one.
	partly bool
	// do asks once. errGone: nobody knows; any other error: refused. again: it may have been done before.
	do func(again bool) error
}

// refused is an answer that is no success.
type refused struct {
	code int
	text string
}

func (r *refused) Error() string { return fmt.Sprintf("%d %s", r.code, r.text) }

// ask makes one request. Codes of 400 and more are refused, but for those that are fine.
func (e *engine) ask(method, path string, body any, fine ...int) ([]byte, error) {
	code, b, err := e.do(method, path, body)
	if err != nil {
		return nil, err
	}
	if code >= 400 && !slices.Contains(fine, code) {
		return nil, &refused{code, strings.TrimSpace(string(b))}
	}
	if strings.Contains(string(b), `"errorDetail"`) { // a load that failed in the middle of its answer
		return nil, &refused{code, strings.TrimSpace(string(b))}
	}
	return b, nil
}

// simply is a verb of one request. fine are the codes that mean that it was done before.
func (e *engine) simply(name, method, path string, body any, change facts, fine ...int) verb {
	return verb{name: name, change: change, do: func(again bool) error {
		ok := []int(nil)
		if again {
			ok = fine
		}
		_, err := e.ask(method, path, body, ok...)
		return err
	}}
}

// ordealVerbs pass every durable write that an engine makes without a registry: at the end everything is as it was at the beginning,
// with the busybox image loaded.
func (e *engine) ordealVerbs(busybox, extra []byte) []verb {
	const long = "sleep 1000"
	run := func(name, command string, host map[string]any, more map[string]any) map[string]any {
		body := map[string]any{"Image": "busybox", "Cmd": []string{"sh", "-c", command}, "HostConfig": host, "StopSignal": "SIGKILL", "Labels": map[string]string{"as": name}}
		maps.Copy(body, more)
		return body
	}
	const mega = 1 << 20
	start := func(name, after string) verb {
		v := e.simply("start "+name, "POST", "/containers/"+name+"/start", nil, facts{"container " + name: after}, http.StatusNotModified)
		start := v.do
		v.do = func(again bool) error {
			if !again {
				return start(false)
			}
			if i, err := e.look(name); err != nil || i.State.Status != "created" {
				return err // it was started
			}
			return start(true)
		}
		if !strings.HasSuffix(after, "running") {
			v.via = map[string][]string{"container " + name: {strings.TrimSuffix(after, after[strings.LastIndex(after, " "):]) + " running"}}
		}
		return v
	}
	remove := func(name string, change facts) verb {
		v := e.simply("remove "+name, "DELETE", "/containers/"+name+"?force=1&v=1", nil, change, http.StatusNotFound, http.StatusConflict)
		v.via = map[string][]string{"container " + name: {"* removing", "* dead"}}
		return v
	}
	return []verb{
		e.simply("load busybox", "POST", "/images/load?quiet=1", busybox, facts{"image busybox:latest": "there"}),
		e.simply("load extra", "POST", "/images/load?quiet=1", extra, facts{"image extra:latest": "there"}),
		e.simply("tag", "POST", "/images/busybox/tag?repo=copy&tag=v1", nil, facts{"image copy:v1": "there"}),
		e.simply("create volume data", "POST", "/volumes/create", map[string]any{"Name": "data", "Labels": map[string]string{"k": "v"}}, facts{"volume data": "k=v"}),
		e.simply("create volume other", "POST", "/volumes/create", map[string]any{"Name": "other"}, facts{"volume other": ""}.with("there")),
		e.simply("create network", "POST", "/networks/create", map[string]any{"Name": "net", "Labels": map[string]string{"k": "v"}}, facts{"network net": "bridge k=v"}, http.StatusConflict),
		e.simply("create web", "POST", "/containers/create?name=web", run("web", long, map[string]any{
			"NetworkMode": "none", "Binds": []string{"data:/data"}, "Memory": 64 * mega,
			"Mounts": []any{map[string]any{"Type": "volume", "Target": "/etc"}}, // copies what the image has there
		}, map[string]any{"Image": "extra"}), facts{"container web": "64 no created", "nameless volumes": "1"}, http.StatusConflict),
		start("web", "64 no running"),
		{name: "exec in web", do: func(bool) error { return e.exec("web", "echo hello >/data/f") }},
		e.simply("rename web", "POST", "/containers/web/rename?name=www", nil, facts{"container web": "", "container www": "64 no running"}, http.StatusNotFound),
		e.simply("update www", "POST", "/containers/www/update", map[string]any{"Memory": 128 * mega, "MemorySwap": -1, "RestartPolicy": map[string]any{"Name": "unless-stopped"}}, facts{"container www": "128 unless-stopped running"}),
		{name: "rest", do: func(bool) error { // what reaches the disk within a second does
			time.Sleep(time.Second)
			_, err := e.ask("GET", "/info", nil)
			return err
		}},
		e.simply("create network vlan", "POST", "/networks/create", map[string]any{"Name": "vlan", "Driver": "macvlan"}, facts{"network vlan": "macvlan k="}, http.StatusConflict),
		e.simply("create lan", "POST", "/containers/create?name=lan", run("lan", "true", map[string]any{"NetworkMode": "vlan"}, nil), facts{"container lan": "0 no created"}, http.StatusConflict),
		start("lan", "0 no exited:0"),
		remove("lan", facts{"container lan": ""}),
		e.simply("remove network vlan", "DELETE", "/networks/vlan", nil, facts{"network vlan": ""}, http.StatusNotFound),
		e.simply("create plugin", "POST", "/plugins/create?name=plug", pluginArchive(), facts{"plugin plug:latest": "off"}, http.StatusConflict, http.StatusInternalServerError),
		e.simply("remove plugin", "DELETE", "/plugins/plug", nil, facts{"plugin plug:latest": ""}, http.StatusNotFound),
		e.simply("create job", "POST", "/containers/create?name=job", run("job", "echo made >/made; exit 3", map[string]any{
			"NetworkMode": "net", "PortBindings": map[string]any{"80/tcp": []any{map[string]string{"HostPort": "8080"}}},
		}, nil), facts{"container job": "0 no created"}, http.StatusConflict),
		start("job", "0 no exited:3"),
		e.simply("create chatty", "POST", "/containers/create?name=chatty", run("chatty", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i of the log; done", map[string]any{
			"NetworkMode": "none", "LogConfig": map[string]any{"Type": "json-file", "Config": map[string]string{"max-size": "40k", "max-file": "3", "compress": "true"}},
		}, nil), facts{"container chatty": "0 no created"}, http.StatusConflict),
		start("chatty", "0 no exited:0"),
		{name: "commit job", change: facts{"image committed:latest": "there"}, do: func(again bool) error {
			_, err := e.ask("POST", "/commit?container=job&repo=committed&tag=latest", map[string]any{})
			return err
		}},
		e.simply("connect www", "POST", "/networks/net/connect", map[string]any{"Container": "job"}, nil, http.StatusForbidden, http.StatusConflict, http.StatusInternalServerError),
		remove("job", facts{"container job": ""}),
		e.simply("untag", "DELETE", "/images/copy:v1", nil, facts{"image copy:v1": ""}, http.StatusNotFound),
		e.berthly("rename volume", "POST", "/volumes/other/rename", map[string]any{"name": "another"}, facts{"volume other": "", "volume another": "there"}),
		e.simply("kill www", "POST", "/containers/www/kill", nil, facts{"container www": "128 unless-stopped exited:137"}, http.StatusConflict),
		remove("www", facts{"container www": "", "nameless volumes": "0"}),
		e.simply("remove image extra", "DELETE", "/images/extra", nil, facts{"image extra:latest": ""}, http.StatusNotFound),
		e.simply("remove volume data", "DELETE", "/volumes/data", nil, facts{"volume data": ""}, http.StatusNotFound),
		e.prune("volumes", `/volumes/prune?filters={"all":["true"]}`, "VolumesDeleted", facts{"volume another": ""}),
		e.prune("containers", "/containers/prune", "ContainersDeleted", facts{"container chatty": ""}),
		e.simply("remove network", "DELETE", "/networks/net", nil, facts{"network net": ""}, http.StatusNotFound),
		e.simply("remove image committed", "DELETE", "/images/committed", nil, facts{"image committed:latest": ""}, http.StatusNotFound),
		e.simply("prune images", "POST", "/images/prune", nil, nil),
	}
}

// trashVerbs are removals that can be taken back, by an engine that has a trash.
func (e *engine) trashVerbs(busybox, extra []byte) []verb {
	restore := func(kind, name string, change facts) verb {
		v := e.berthly("restore "+kind, "POST", "/trash/"+name+"/restore", nil, facts{"trash " + kind + " " + name: ""})
		maps.Copy(v.change, change)
		return v
	}
	into := func(kind, name, path, fact string) verb {
		v := e.simply("remove "+kind, "DELETE", path, nil, facts{fact: "", "trash " + kind + " " + name: "there"}, http.StatusNotFound, http.StatusConflict)
		v.via = map[string][]string{fact: {"* removing", "* dead"}}
		return v
	}
	container := into("container", "box", "/containers/box?force=1", "container box")
	volume := into("volume", "keep", "/volumes/keep", "volume keep")
	image := into("image", "extra:latest", "/images/extra", "image extra:latest")
	empty := e.berthly("empty the trash", "DELETE", "/trash", nil, facts{"trash container box": "", "trash volume keep": "", "trash image extra:latest": ""})
	empty.partly = true
	return []verb{
		e.simply("load busybox", "POST", "/images/load?quiet=1", busybox, facts{"image busybox:latest": "there"}),
		e.simply("load extra", "POST", "/images/load?quiet=1", extra, facts{"image extra:latest": "there"}),
		e.simply("create volume keep", "POST", "/volumes/create", map[string]any{"Name": "keep"}, facts{"volume keep": "there"}),
		e.simply("create box", "POST", "/containers/create?name=box", map[string]any{"Image": "busybox", "HostConfig": map[string]any{"NetworkMode": "none"}}, facts{"container box": "0 no created"}, http.StatusConflict),
		container, restore("container", "box", facts{"container box": "0 no created"}), container,
		volume, restore("volume", "keep", facts{"volume keep": "there"}), volume,
		image, restore("image", "extra:latest", facts{"image extra:latest": "there"}), image,
		empty,
	}
}

// prune is a verb that succeeds also when it could remove nothing: what it has removed stands in the answer.
func (e *engine) prune(what, path, field string, change facts) verb {
	v := verb{name: "prune " + what, change: change, via: map[string][]string{}}
	for k := range change {
		v.via[k] = []string{"* removing", "* dead"}
	}
	v.do = func(again bool) error {
		b, err := e.ask("POST", path, nil)
		if err != nil {
			return err
		}
		var report map[string]any
		json.Unmarshal(b, &report)
		if gone, _ := report[field].([]any); len(gone) == 0 && !again {
			return &refused{http.StatusInternalServerError, "nothing was removed: no space left on device, or whatever the engine's log says"}
		}
		return nil
	}
	return v
}

// with gives every fact the value.
func (f facts) with(value string) facts {
	for k := range f {
		f[k] = value
	}
	return f
}

// berthly is simply on Berth's own routes.
func (e *engine) berthly(name, method, path string, body any, change facts) verb {
	return verb{name: name, change: change, do: func(again bool) error {
		_, err := e.ask(method, "/berth/v1"+path, body, map[bool][]int{true: {http.StatusNotFound, http.StatusConflict}}[again]...)
		return err
	}}
}

// look inspects a container once; fault of its absence is a created status that never was.
func (e *engine) look(name string) (i inspected, err error) {
	b, err := e.ask("GET", "/containers/"+name+"/json", nil)
	if err == nil {
		err = json.Unmarshal(b, &i)
	}
	return i, err
}

// exec runs a shell line and waits for its end.
func (e *engine) exec(name, line string) error {
	b, err := e.ask("POST", "/containers/"+name+"/exec", map[string]any{"Cmd": []string{"sh", "-c", line}})
	if err != nil {
		return err
	}
	var made struct{ Id string }
	json.Unmarshal(b, &made)
	if _, err := e.ask("POST", "/exec/"+made.Id+"/start", map[string]any{"Detach": true}); err != nil {
		return err
	}
	for range 2000 {
		b, err := e.ask("GET", "/exec/"+made.Id+"/json", nil)
		if err != nil {
			return err
		}
		var x struct {
			Running  bool
			ExitCode *int
		}
		json.Unmarshal(b, &x)
		if !x.Running && x.ExitCode != nil {
			if *x.ExitCode != 0 {
				return &refused{*x.ExitCode, "exit code of " + line}
			}
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return &refused{0, "exec does not end"}
}

// observe gives the facts as the engine tells them now.
func (e *engine) observe() (facts, error) {
	f := facts{"nameless volumes": "0"}
	var list []struct {
		Id    string
		Names []string
		State string
	}
	b, err := e.ask("GET", "/containers/json?all=1", nil)
	if err != nil {
		return nil, err
	}
	json.Unmarshal(b, &list)
	for _, c := range list {
		b, err := e.ask("GET", "/containers/"+c.Id+"/json", nil)
		if r, ok := err.(*refused); ok && r.code == http.StatusNotFound {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		var i struct {
			Name  string
			State struct {
				Status   string
				ExitCode int
			}
			HostConfig struct {
				Memory        int64
				RestartPolicy struct{ Name string }
			}
		}
		json.Unmarshal(b, &i)
		state := i.State.Status
		if state == "exited" {
			state = fmt.Sprintf("exited:%d", i.State.ExitCode)
		}
		f["container "+strings.TrimPrefix(i.Name, "/")] = fmt.Sprintf("%d %s %s", i.HostConfig.Memory>>20, i.HostConfig.RestartPolicy.Name, state)
	}
	var images []struct{ RepoTags []string }
	if b, err = e.ask("GET", "/images/json", nil); err != nil {
		return nil, err
	}
	json.Unmarshal(b, &images)
	for _, i := range images {
		for _, tag := range i.RepoTags {
			f["image "+tag] = "there"
		}
	}
	var volumes struct {
		Volumes []struct {
			Name   string
			Labels map[string]string
		}
	}
	if b, err = e.ask("GET", "/volumes", nil); err != nil {
		return nil, err
	}
	json.Unmarshal(b, &volumes)
	nameless := 0
	for _, v := range volumes.Volumes {
		switch {
		case len(v.Name) == 64:
			nameless++
		case v.Labels["k"] != "":
			f["volume "+v.Name] = "k=" + v.Labels["k"]
		default:
			f["volume "+v.Name] = "there"
		}
	}
	f["nameless volumes"] = fmt.Sprint(nameless)
	var networks []struct {
		Name, Driver string
		Labels       map[string]string
	}
	if b, err = e.ask("GET", "/networks", nil); err != nil {
		return nil, err
	}
	json.Unmarshal(b, &networks)
	for _, n := range networks {
		if n.Name != "bridge" && n.Name != "host" && n.Name != "none" {
			f["network "+n.Name] = n.Driver + " k=" + n.Labels["k"]
		}
	}
	var trash struct{ Items []struct{ Kind, Name string } }
	if b, err = e.ask("GET", "/berth/v1/trash", nil, http.StatusNotImplemented); err != nil {
		return nil, err
	}
	json.Unmarshal(b, &trash)
	for _, i := range trash.Items {
		f["trash "+i.Kind+" "+i.Name] = "there"
	}
	var plugins []struct {
		Name    string
		Enabled bool
	}
	if b, err = e.ask("GET", "/plugins", nil); err != nil {
		return nil, err
	}
	json.Unmarshal(b, &plugins)
	for _, p := range plugins {
		f["plugin "+p.Name] = map[bool]string{true: "on", false: "off"}[p.Enabled]
	}
	return f, nil
}

// pluginArchive is what docker plugin create sends: a plugin that is never enabled.
func pluginArchive() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	config := `{"description":"nothing","documentation":"","entrypoint":["/bin/none"],"interface":{"types":["docker.volumedriver/1.0"],"socket":"plug.sock"},"network":{"type":"none"},"linux":{}}`
	w.WriteHeader(&tar.Header{Name: "config.json", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(config))})
	w.Write([]byte(config))
	w.WriteHeader(&tar.Header{Name: "rootfs/", Typeflag: tar.TypeDir, Mode: 0o755})
	w.WriteHeader(&tar.Header{Name: "rootfs/file", Typeflag: tar.TypeReg, Mode: 0o644, Size: 3})
	w.Write([]byte("abc"))
	w.Close()
	return b.Bytes()
}

// after gives the facts that a verb makes.
func (f facts) after(v verb) facts {
	n := maps.Clone(f)
	for k, to := range v.change {
		if n[k] = to; to == "" {
			delete(n, k)
		}
	}
	return n
}

// differ names what two sets of facts do not have in common.
func differ(want, got facts) (all []string) {
	keys := map[string]bool{}
	for k := range want {
		keys[k] = true
	}
	for k := range got {
		keys[k] = true
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if want[k] != got[k] {
			all = append(all, fmt.Sprintf("%s: is %q, want %q", k, got[k], want[k]))
		}
	}
	return all
}

// lasting leaves out what a power cut does not keep: where containers stand.
func (f facts) lasting() facts {
	n := maps.Clone(f)
	for k, v := range n {
		if strings.HasPrefix(k, "container ") {
			n[k] = v[:strings.LastIndexByte(v, ' ')]
		}
	}
	return n
}
