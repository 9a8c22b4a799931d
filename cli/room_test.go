package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// recorder is a Berth engine that remembers what it was asked and answers from a table.
type recorder struct {
	mu      sync.Mutex
	asked   []string // "POST /path body"
	answers map[string]string
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if strings.HasSuffix(req.URL.Path, "_ping") {
		w.Header().Set("Api-Version", "1.56")
		w.Header().Set(versionHeader, "1")
		return
	}
	body, _ := io.ReadAll(req.Body)
	line := req.Method + " " + req.URL.RequestURI()
	r.mu.Lock()
	r.asked = append(r.asked, line+" "+string(body))
	r.mu.Unlock()
	prefixes := slices.Sorted(maps.Keys(r.answers))
	slices.Reverse(prefixes) // the longest that fits comes first
	for _, at := range prefixes {
		if answer := r.answers[at]; strings.HasPrefix(line, at) {
			if code, text, ok := strings.Cut(answer, "!"); ok && len(code) == 3 {
				var n int
				_, _ = fmt.Sscan(code, &n)
				w.WriteHeader(n)
				answer = text
			}
			_, _ = io.WriteString(w, answer)
			return
		}
	}
	http.Error(w, `{"message":"not in the table: `+line+`"}`, http.StatusNotFound)
}

func TestRoomCommands(t *testing.T) {
	long := `tcp dport 8080 dnat ip to 10.9.0.5:80 comment "published by web, which is asked for by a very long rule that does not fit"`
	answers := map[string]string{
		"GET /berth/v1/network/rules":                       "table inet berth {\n}\n",
		"GET /berth/v1/networks/prune?filters=%7B%7D":       `{"remove":[{"name":"idle","size":0}],"reclaimable":0}`,
		"GET /berth/v1/containers/prune?":                   `{"version":1,"remove":[{"kind":"container","id":"4f","name":"old","look":"old exited","size":2000,"why":"ended with code 0"}],"spare":[{"kind":"container","id":"5f","name":"web","size":-1,"why":"it is running"}],"reclaimable":2000}`,
		"POST /berth/v1/containers/prune":                   `{"removed":[{"kind":"container","id":"4f","name":"old","size":2000}],"skipped":[{"kind":"container","id":"6f","name":"new","size":-1,"why":"it is gone already"}],"reclaimed":2000}`,
		"GET /berth/v1/system/prune?":                       `{"version":1,"remove":[{"kind":"image","id":"sha256:1","name":"box:1","look":"x","size":1000,"why":"no container uses it"}],"spare":[],"reclaimable":1000}`,
		"GET /berth/v1/images/gc":                           `{"version":1,"remove":[{"kind":"image","id":"sha256:1","name":"box:1","look":"x","size":1000,"why":"least recently used"}],"spare":[],"reclaimable":1000,"due":true,"high":"90% used","low":"80% used","disk":"95% used"}`,
		"POST /berth/v1/images/gc":                          `{"removed":[{"kind":"image","id":"sha256:1","name":"box:1","size":1000}],"skipped":[],"reclaimed":1000}`,
		"GET /berth/v1/images":                              `{"images":[{"id":"sha256:4f2a","repoTags":["box:1"],"size":1000,"containers":1}]}`,
		"GET /berth/v1/trash":                               `{"window":"","items":[{"id":"4f2a","kind":"container","name":"web","size":2000,"removed":"2026-01-01T00:00:00Z","expires":"2026-01-02T00:00:00Z"}],"size":2000}`,
		"POST /berth/v1/trash/web/restore":                  `{"restored":[{"id":"4f2a","kind":"container","name":"web","now":["web-restored"],"notes":["there is another"]},{"id":"5","kind":"volume","name":"v","now":["v"]}]}`,
		"DELETE /berth/v1/trash/a/b":                        `{"removed":[{"kind":"container","id":"4f","name":"a/b","size":0}],"skipped":[],"reclaimed":0}`,
		"GET /berth/v1/networks/prune?":                     `{"remove":[],"reclaimable":0}`,
		"GET /berth/v1/volumes/prune?":                      `{"remove":[{"name":"a","size":1500000},{"name":"long-name","size":-1}],"reclaimable":1500000}`,
		"POST /berth/v1/volumes/data/clone":                 `{}`,
		"POST /berth/v1/volumes/data/snapshot":              `{}`,
		"POST /berth/v1/volumes/data/rename":                `409!{"message":"rename data to x: volume is in use - [abc]"}`,
		"POST /berth/v1/containers/web/ports":               `{"ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"81/tcp":null}}`,
		"POST /berth/v1/containers/web/ports/hand-over":     `{"ports":{}}`,
		"POST /v1.56/containers/web/update":                 `{"Warnings":[]}`,
		"GET /berth/v1/port/audit":                          `{"exposures":[{"containerID":"4f2a","container":"web","network":"front","protocol":"tcp","port":80,"host":"0.0.0.0:8080","reach":"anywhere","rule":` + quote(long) + `,"notes":["the client's address is kept"]},{"network":"front","host":"10.9.0.0/24","reach":"same network","rule":"iifname br oifname br accept"}]}`,
		"POST /berth/v1/volumes/full/import":                `409!{"message":"import volume full: it is not empty"}`,
		"POST /berth/v1/volumes/data/import":                `{}`,
		"GET /berth/v1/volumes/data/export":                 "the archive",
		"GET /berth/v1/volumes/nosuch/export":               `404!{"message":"get nosuch: no such volume"}`,
		"POST /v1.56/containers/create":                     `{"Id":"4f2a","Warnings":[]}`,
		"GET /v1.56/containers/4f2a/json":                   `{}`,
		"POST /berth/v1/containers/nosuch/ports":            `404!{"message":"No such container: nosuch"}`,
		"GET /v1.56/containers/web/json":                    `{"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]}}}`,
		"POST /berth/v1/containers/web/ports/hand-over/bad": ``,
		"POST /berth/v1/images/fsck":                        `{"status":"checking"}` + "\n" + `{"damage":{"part":"layer","subject":"sha256:1","images":["web:1"],"what":"a file has other bytes","source":"r:5000/web","fetch":13000}}` + "\n" + `{"damage":{"part":"orphan","subject":"layer/x","images":[],"what":"belongs to nothing","local":true}}` + "\n" + `{"sum":{"images":2,"names":1,"documents":4,"blobs":0,"layers":3,"bytes":1500000,"damaged":2}}`,
		"POST /berth/v1/images/fsck?repair=1":               `{"status":"checking"}` + "\n" + `{"damage":{"part":"layer","subject":"sha256:1","what":"bytes","source":"r:5000/web","fetch":13000}}` + "\n" + `{"status":"repairing"}` + "\n" + `{"damage":{"part":"layer","subject":"sha256:1","what":"bytes","source":"r:5000/web","fetch":13000,"tried":true,"repaired":true}}` + "\n" + `{"sum":{"damaged":1,"repaired":1}}`,
		"GET /berth/v1/images/team/web:1/sources":           `{"id":"sha256:4f2a","repoTags":["team/web:1"],"repoDigests":[],"layers":[{"diffID":"sha256:1234567890abcdef","sources":[{"repository":"r:5000/old","digest":"sha256:aa","mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":1000},{"repository":"r:5000/web","digest":"sha256:bb","mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","size":900}]},{"diffID":"sha256:ff","sources":[]}]}`,
	}
	dir := t.TempDir()
	tarball := filepath.Join(dir, "in.tar")
	if err := os.WriteFile(tarball, []byte("tarred"), 0o600); err != nil {
		t.Fatal(err)
	}
	planFile := filepath.Join(dir, "plan.json")
	if err := os.WriteFile(planFile, []byte(`{"remove":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args      string
		code      int
		out, errs string // contained
		asked     string // one of the requests begins so
	}{
		{args: "network rules", out: "table inet berth {\n}\n"},
		{args: "network rules x", code: 1, errs: "accepts no arguments"},
		{args: "network prune --plan", out: "Would remove 1 network:\n  idle\n"},
		{args: "network prune --plan --filter label=a", out: "No networks would be removed.", asked: "GET /berth/v1/networks/prune?filters=%7B%22label%22%3A%7B%22a%22%3Atrue%7D%7D"},
		{args: "volume prune --plan", out: "Would remove 2 volumes:\n  a          1.5MB\n  long-name  size unknown\n\nSpace that would be reclaimed: 1.5MB\n"},
		{args: "container prune --plan", out: "Would remove 1 container:\n  old  2kB  ended with code 0\n\nSpace that would be reclaimed: 2kB\n\nWould stay:\n  web  it is running\n"},
		{args: "container prune --plan --save -", out: `"look":"old exited"`},
		{args: "container prune --plan --apply x", code: 1, errs: "--plan makes a plan, --apply carries one out"},
		{args: "container prune --save x", code: 1, errs: "--save needs --plan"},
		{args: "container prune --apply " + tarball, code: 1, errs: "holds no plan"},
		{args: "container prune --apply " + planFile, out: "Removed 1:\n  old  2kB  container\n\nSkipped, as it is not what the plan was made of any more:\n  new  it is gone already\n\nTotal reclaimed space: 2kB\n", asked: `POST /berth/v1/containers/prune {"remove":[]}`},
		{args: "system prune -a --volumes --plan", out: "Would remove 1 image:\n  box:1  1kB  no container uses it\n", asked: "GET /berth/v1/system/prune?all=1&filters=%7B%7D&volumes=1"},
		{args: "image gc --plan", out: "The disk is 95% used; images are collected from 90% used on, until it is 80% used.\nWould remove 1 image:\n  box:1  1kB  least recently used\n"},
		{args: "image gc", out: "Removed 1:\n  box:1  1kB  image\n", asked: "POST /berth/v1/images/gc {"},
		{args: "image ls --last-used", out: "IMAGE  ID"},
		{args: "trash ls", out: "NAME\n4f2a  container  2kB", errs: "without --trash-window"},
		{args: "trash ls -q", out: "4f2a\n"},
		{args: "trash restore web", out: "container web-restored\nvolume v\n", errs: "  there is another\n", asked: "POST /berth/v1/trash/web/restore"},
		{args: "trash restore", code: 1, errs: "requires at least 1"},
		{args: "trash empty", code: 1, out: "deletes everything in the trash for good", errs: "nothing was deleted"},
		{args: "trash empty -f a/b", out: "Removed 1:", asked: "DELETE /berth/v1/trash/a/b"},
		{args: "volume prune --all --plan", asked: "GET /berth/v1/volumes/prune?filters=%7B%22all%22%3A%7B%22true%22%3Atrue%7D%7D"},
		{args: "volume clone data copy", out: "copy\n", asked: `POST /berth/v1/volumes/data/clone {"name":"copy"}`},
		{args: "volume snapshot data snap", out: "snap\n", asked: `POST /berth/v1/volumes/data/snapshot {"name":"snap"}`},
		{args: "volume rename data x", code: 1, errs: "Error response from daemon: rename data to x: volume is in use - [abc]"},
		{args: "volume rename data", code: 1, errs: "requires 2 arguments"},
		{args: "volume import data " + tarball, out: "data\n", asked: "POST /berth/v1/volumes/data/import tarred"},
		{args: "volume import full " + tarball, code: 1, errs: "it is not empty"},
		{args: "volume import data " + dir + "/nosuch", code: 1, errs: "no such file"},
		{args: "volume export data", out: "the archive"},
		{args: "volume export nosuch -o " + dir + "/no.tar", code: 1, errs: "get nosuch: no such volume"},
		{args: "container update --publish-add 8080:80 --publish-rm 81/udp web", out: "web\n  80/tcp -> 0.0.0.0:8080\n  80/tcp -> [::]:8080\n",
			asked: `POST /berth/v1/containers/web/ports {"publish":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"unpublish":{"81/udp":[{"HostIp":"","HostPort":""}]}}`},
		{args: "update --publish-add 8080:80 --memory 64m web", asked: "POST /v1.56/containers/web/update"},
		{args: "update --publish-add nonsense web", code: 1, errs: "invalid"},
		{args: "update --publish-add 1:1 nosuch", code: 1, errs: "No such container: nosuch"},
		{args: "container hand-over web web2 80", out: "web2\n", asked: `POST /berth/v1/containers/web/ports/hand-over {"ports":{"80/tcp":[{"HostIp":"","HostPort":""}]},"to":"web2"}`},
		{args: "container hand-over web web2", asked: `POST /berth/v1/containers/web/ports/hand-over {"to":"web2"}`},
		{args: "port web", out: "80/tcp -> 0.0.0.0:8080"},
		{args: "port", code: 1, errs: "requires at least 1"},
		{args: "port --json web", code: 1, errs: "--json and --no-trunc are for --audit"},
		{args: "port --audit", out: "CONTAINER  NETWORK  PORT    REACHED AT    FROM          RULE\nweb        front    80/tcp  0.0.0.0:8080  anywhere      " + long + "\n(all)      front    all     10.9.0.0/24   same network  iifname br oifname br accept\n\nweb 80/tcp: the client's address is kept\n"},
		{args: "port --audit nosuch", out: "Nothing can be reached."},
		{args: "port --audit --json web", out: `"container": "web"`},
		{args: "create --network-rate 10mbit --network-weight 5 busybox", out: "4f2a\n", asked: "POST /v1.56/containers/create"},
		{args: "image fsck", code: 1, out: "layer sha256:1: a file has other bytes\n  of web:1\n  --repair fetches 13kB from r:5000/web\norphan layer/x: belongs to nothing\n  --repair makes it from what is here\n2 images, 1 names, 4 documents, 0 kept blobs, 3 layers (1.5MB read): 2 damaged\n"},
		{args: "image fsck --repair", out: "layer sha256:1: bytes\n  repaired: fetched 13kB from r:5000/web\n0 images, 0 names, 0 documents, 0 kept blobs, 0 layers (0B read): 1 damaged, 1 repaired\n"},
		{args: "image fsck x", code: 1, errs: "accepts no arguments"},
		{args: "image sources team/web:1", out: "image sha256:4f2a\n  team/web:1\n\nLAYER         BLOB  SIZE  KIND  AT\n1234567890ab  bb    900B  zstd  r:5000/web\n              aa    1kB   gzip  r:5000/old\nff                              nowhere: it would be rebuilt\n"},
		{args: "image sources --json team/web:1", out: `"repository": "r:5000/old"`},
		{args: "image fsck --help", out: "berth image fsck --repair"},
		{args: "network rules --help", out: "Examples:"},
		{args: "port --help", out: "berth port --audit web"},
		{args: "volume export --help", out: "ssh other berth volume import data"},
		{args: "volume snapshot --help", out: "berth volume clone data-monday data-again"},
		{args: "container update --help", out: "--publish-add"},
		{args: "run --help", out: "--network-rate 10mbit"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			r := &recorder{answers: answers}
			host := serve(t, r.ServeHTTP)
			out, errs, code := berth(t, append([]string{"-H", host}, strings.Fields(tt.args)...)...)
			if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errs, tt.errs) {
				t.Errorf("code %d, stdout:\n%s\nstderr: %s\nwant %d, %q, %q", code, out, errs, tt.code, tt.out, tt.errs)
			}
			found := tt.asked == ""
			for _, a := range r.asked {
				found = found || strings.HasPrefix(a, tt.asked)
			}
			if !found {
				t.Errorf("asked was %q, want %q", r.asked, tt.asked)
			}
			if strings.HasPrefix(tt.args, "create") && !strings.Contains(strings.Join(r.asked, " "), `"Annotations":{"berth.network.rate":"10mbit","berth.network.weight":"5"}`) {
				t.Errorf("the share is not asked for: %q", r.asked)
			}
		})
	}
	if _, err := os.Stat(dir + "/no.tar"); !os.IsNotExist(err) {
		t.Error("a failed export left a file")
	}
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// A file is written whole or not at all.
func TestExportToAFile(t *testing.T) {
	cut := false
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "_ping") {
			w.Header().Set(versionHeader, "1")
			return
		}
		_, _ = io.WriteString(w, "the archive")
		if cut {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	path := filepath.Join(t.TempDir(), "out.tar")
	if _, errs, code := berth(t, "-H", host, "volume", "export", "data", "-o", path); code != 0 {
		t.Fatal(errs)
	}
	cut = true
	_, errs, code := berth(t, "-H", host, "volume", "export", "data", "-o", path)
	if code == 0 || !strings.Contains(errs, "the archive is not whole") {
		t.Errorf("code %d, stderr %q", code, errs)
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".out*"))
	data, err := os.ReadFile(path)
	if err != nil || string(data) != "the archive" || len(left) > 0 {
		t.Errorf("%q, %v, left %q", data, err, left)
	}
}

func TestRoomCommandsNeedBerth(t *testing.T) {
	created := false
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "_ping") {
			w.Header().Set("Api-Version", "1.45")
			return
		}
		created = created || strings.HasSuffix(r.URL.Path, "/create") || strings.HasSuffix(r.URL.Path, "/update")
		http.Error(w, `{"message":"page not found"}`, http.StatusNotFound)
	})
	for args, want := range map[string]int{
		"network rules": 1, "network prune --plan": 1, "volume prune --plan": 1, "volume clone a b": 1, "volume export a": 1, "port --audit": 1,
		"container hand-over a b": 1, "update --memory 1g --publish-add 1:1 a": 1, "run --network-rate 1mbit a": 125, "create --network-weight 3 a": 125,
	} {
		_, errs, code := berth(t, append([]string{"-H", host}, strings.Fields(args)...)...)
		if code != want || !strings.Contains(errs, "needs a Berth engine") {
			t.Errorf("%s: code %d, stderr %q", args, code, errs)
		}
	}
	if created {
		t.Error("another engine was asked to do half of it")
	}
}
