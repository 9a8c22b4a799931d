package conform

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"berth/test/live"
)

// registryAddr is where the engine's host has a registry with box:one and the plugin plug:one, while the tests run.
const registryAddr = "127.0.0.1:5000"

// A stage has the things that the requests of one version speak of.
type stage struct {
	client *http.Client
	minor  int
	run    string // the label of all that is made here
	began  string

	made   int
	shared map[string]string
	undo   []string // "DELETE /path", newest last
}

func newStage(client *http.Client, minor int) *stage {
	run := fmt.Sprintf("conform%d", minor)
	return &stage{client: client, minor: minor, run: run, began: fmt.Sprint(time.Now().Unix()), shared: map[string]string{}}
}

// close takes away what was made.
func (s *stage) close() {
	for i := len(s.undo) - 1; i >= 0; i-- {
		method, path, _ := strings.Cut(s.undo[i], " ")
		_, _ = s.call(method, path, nil) // most is gone already
	}
}

var words = regexp.MustCompile(`\$[a-z]+`)

// expand puts things in the place of words; what fails stops the version. A request that changes nothing takes what the one before it
// took: gentle.
func (s *stage) expand(text string, gentle bool) string {
	return words.ReplaceAllStringFunc(text, func(w string) string {
		if w = w[1:]; !gentle || w == "name" || w == "now" {
			return s.word(w)
		}
		if s.shared[w] == "" {
			s.shared[w] = s.word(w)
		}
		return s.shared[w]
	})
}

// forget lets go of what a prune may have taken.
func (s *stage) forget() {
	for _, w := range []string{"new", "over", "nocmd", "readonly", "volume", "network"} {
		delete(s.shared, w)
	}
}

// word makes what a word means, or tells what was made for it before.
func (s *stage) word(w string) string {
	switch w {
	case "run":
		return s.run
	case "began":
		return s.began
	case "now":
		return fmt.Sprint(time.Now().Unix())
	case "box", "tiny":
		return w
	case "registry":
		return registryAddr
	case "pluginremote":
		return registryAddr + "/plug:one"
	case "name":
		name := s.fresh()
		s.undo = append(s.undo, "DELETE /containers/"+name+"?force=1", "DELETE /volumes/"+name, "DELETE /networks/"+name, "DELETE /images/"+name+"?force=1", "DELETE /plugins/"+name+"?force=1")
		return name
	case "web", "webname", "busyvolume", "busynetwork", "netname", "joined":
		return s.house(w)
	case "new":
		return s.container(`{}`)
	case "nocmd":
		return s.container(`{"Cmd":["/no/such/program"]}`)
	case "readonly":
		return s.container(`{"HostConfig":{"ReadonlyRootfs":true}}`)
	case "up":
		return s.started(`{}`)
	case "paused":
		id := s.started(`{}`)
		s.must("POST", "/containers/"+id+"/pause", nil, nil)
		return id
	case "over":
		id := s.started(`{"Cmd":["sh","-c","echo hello; echo trouble >&2; echo >/tmp/new"]}`)
		s.must("POST", "/containers/"+id+"/wait", nil, nil)
		return id
	case "exec", "running":
		var made struct{ Id string }
		s.must("POST", "/containers/"+s.word("web")+"/exec", strings.NewReader(`{"Cmd":["sleep","1000"],"AttachStdout":true,"Tty":true}`), &made)
		if w == "exec" {
			// One that ends by itself: the requests start it.
			s.must("POST", "/containers/"+s.word("web")+"/exec", strings.NewReader(`{"Cmd":["true"],"AttachStdout":true}`), &made)
			return made.Id
		}
		s.must("POST", "/exec/"+made.Id+"/start", strings.NewReader(`{"Detach":true,"Tty":true}`), nil)
		return made.Id
	case "image":
		return s.tag("")
	case "pushed":
		return s.tag(registryAddr + "/")
	case "used":
		name := s.imported()
		s.started(fmt.Sprintf(`{"Image":%q}`, name))
		return name
	case "volume":
		name := s.fresh()
		s.must("POST", "/volumes/create", strings.NewReader(fmt.Sprintf(`{"Name":%q,"Labels":{"conform":%q}}`, name, s.run)), nil)
		s.undo = append(s.undo, "DELETE /volumes/"+name)
		return name
	case "network":
		name := s.fresh()
		s.must("POST", "/networks/create", strings.NewReader(fmt.Sprintf(`{"Name":%q,"Labels":{"conform":%q}}`, name, s.run)), nil)
		s.undo = append(s.undo, "DELETE /networks/"+name)
		return name
	case "plugin":
		return s.plugin(s.fresh())
	case "pluginpushed":
		return s.plugin(registryAddr + "/" + s.fresh() + ":one")
	}
	panic("no word " + w)
}

// house makes, once for the version, a network and a volume with a container that has as much to tell as one can.
func (s *stage) house(w string) string {
	if got, ok := s.shared[w]; ok {
		return got
	}
	network, volume := s.word("network"), s.word("volume")
	name := s.fresh()
	s.shared["webname"] = name
	body := fmt.Sprintf(`{"Image":"box","Cmd":["sleep","1000"],"Tty":true,"OpenStdin":true,"Hostname":"web","User":"0:0","Env":["A=b"],"Labels":{"conform":%q},
		"ExposedPorts":{"80/tcp":{},"53/udp":{}},"Volumes":{"/anonymous":{}},"WorkingDir":"/tmp","StopSignal":"SIGINT","StopTimeout":3,
		"HostConfig":{"Binds":["%s:/data:ro","/etc:/host:ro"],"Memory":67108864,"CpuShares":512,"PidsLimit":50,"CapAdd":["NET_ADMIN"],"Dns":["192.0.2.1"],"ExtraHosts":["far:192.0.2.2"],
			"Tmpfs":{"/scratch":"size=1m"},"Mounts":[{"Type":"tmpfs","Target":"/more"}],"PortBindings":{"80/tcp":[{"HostPort":"0"}]},"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":2},
			"LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}},"Ulimits":[{"Name":"nofile","Soft":100,"Hard":200}],"Sysctls":{"net.ipv4.ip_forward":"1"},"NetworkMode":%q},
		"NetworkingConfig":{"EndpointsConfig":{%q:{"Aliases":["www"]}}}}`, s.run, volume, network, network)
	var made struct{ Id string }
	s.must("POST", "/containers/create?name="+name, strings.NewReader(body), &made)
	s.undo = append(s.undo, "DELETE /containers/"+name+"?force=1&v=1")
	s.must("POST", "/containers/"+name+"/start", nil, nil)
	s.shared["web"], s.shared["joined"], s.shared["busynetwork"], s.shared["netname"], s.shared["busyvolume"] = made.Id, made.Id, network, network, volume
	return s.shared[w]
}

func (s *stage) fresh() string {
	s.made++
	return fmt.Sprintf("%s-%d", s.run, s.made)
}

// container creates one; more are fields of its configuration.
func (s *stage) container(more string) string {
	config := map[string]any{"Image": "box", "Cmd": []string{"sleep", "1000"}, "Labels": map[string]string{"conform": s.run}}
	if err := json.Unmarshal([]byte(more), &config); err != nil {
		panic(err)
	}
	body, err := json.Marshal(config)
	if err != nil {
		panic(err)
	}
	name := s.fresh()
	var made struct{ Id string }
	s.must("POST", "/containers/create?name="+name, bytes.NewReader(body), &made)
	s.undo = append(s.undo, "DELETE /containers/"+made.Id+"?force=1&v=1")
	return made.Id
}

func (s *stage) started(more string) string {
	id := s.container(more)
	s.must("POST", "/containers/"+id+"/start", nil, nil)
	return id
}

func (s *stage) tag(before string) string {
	name := before + s.fresh()
	s.must("POST", "/images/box/tag?repo="+name+"&tag=latest", nil, nil)
	s.undo = append(s.undo, "DELETE /images/"+name)
	return name
}

// imported makes an image that nothing else has.
func (s *stage) imported() string {
	name := s.fresh()
	box, err := live.BoxTar()
	if err != nil {
		panic(err)
	}
	s.must("POST", "/images/create?fromSrc=-&repo="+name+"&changes=LABEL%20only="+name, bytes.NewReader(box), nil)
	s.undo = append(s.undo, "DELETE /images/"+name+"?force=1")
	return name
}

func (s *stage) plugin(name string) string {
	s.must("POST", "/plugins/create?name="+name, bytes.NewReader(archives()["plugin"]), nil)
	s.undo = append(s.undo, "DELETE /plugins/"+name+"?force=1")
	return name
}

// broken is what stops a version: the stage itself could not be set.
type broken struct{ error }

// must calls at the stage's version, and decodes the answer into out where that is not nil.
func (s *stage) must(method, path string, body io.Reader, out any) {
	data, err := s.call(method, path, body)
	if err == nil && out != nil {
		err = json.Unmarshal(data, out)
	}
	if err != nil {
		panic(broken{fmt.Errorf("%s %s: %w", method, path, err)})
	}
}

func (s *stage) call(method, path string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequest(method, fmt.Sprintf("http://engine/v1.%d%s", s.minor, path), body)
	if err != nil {
		return nil, err
	}
	if _, text := body.(*strings.Reader); text || strings.HasPrefix(path, "/containers/create") {
		req.Header.Set("Content-Type", "application/json")
	} else if body != nil {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(data))
	}
	return data, err
}

// archives are the bodies that are no JSON.
var archives = sync.OnceValue(func() map[string][]byte {
	plain := tarOf(map[string]string{"hello": "hello\n"})
	config := `{"architecture":"amd64","os":"linux","config":{"Cmd":["true"]},"rootfs":{"type":"layers","diff_ids":["` + sha256Of(plain) + `"]}}`
	return map[string][]byte{
		"file": plain,
		"image": tarOf(map[string]string{
			"layer.tar": string(plain), "config.json": config, "manifest.json": `[{"Config":"config.json","RepoTags":["conform-loaded:one"],"Layers":["layer.tar"]}]`,
		}),
		"plugin": tarOf(map[string]string{
			"config.json": `{"description":"for the test","entrypoint":["/none"],"interface":{"types":["docker.volumedriver/1.0"],"socket":"p.sock"},"network":{"type":"none"},"linux":{},
				"env":[{"name":"GREETING","value":"hello","settable":["value"]}],"workdir":"/","args":{},"mounts":[]}`,
			"rootfs/etc/name": "plugin\n",
		}),
	}
})

func tarOf(files map[string]string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if _, ok := files["rootfs/etc/name"]; ok {
		for _, dir := range []string{"rootfs/", "rootfs/etc/"} {
			_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}) // into memory
		}
	}
	for name, text := range files {
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text))})
		_, _ = io.WriteString(w, text)
	}
	_ = w.Close()
	return b.Bytes()
}
