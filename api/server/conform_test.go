package server

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"berth/test/conform/swagger"
)

// knownDifferences are places where Docker's answers are not what its descriptions say, and ours are as Docker's answers.
var knownDifferences = []string{
	".ExitCode: null", // of an exec that has not ended
	".HostConfig.MemorySwappiness: null",
	".HostConfig.PidsLimit: null",
	".ExecIDs: null",
	`.RestartPolicy.Name: "no" is none`,               // until 1.40
	".Containers[*]: object instead of array",         // of /system/df until 1.38
	".NetworkSettings.Ports: object instead of array", // until 1.27
	".PortBindings.*: array instead of object",        // until 1.30
	".IPAM.Config[*].*: object instead of string",     // auxiliary addresses of networks until 1.40
	".IPAM.Options: object instead of array",          // likewise
}

// Answers with everything in them are what Docker's description of their version says: nothing required is missing, and every value has its
// type. From 1.52 on nothing else is there either; the descriptions before are not complete, and Docker adds new fields to old versions, too.
// A real engine's answers, and every operation and version, are compared by test/conform.
func TestAnswersFitTheirDescription(t *testing.T) {
	for _, version := range []string{"1.25", "1.30", "1.35", "1.40", "1.41", "1.43", "1.44", "1.46", "1.48", "1.50", "1.51", "1.52", "1.53", "1.56"} {
		t.Run(version, func(t *testing.T) {
			minor, err := strconv.Atoi(strings.TrimPrefix(version, "1."))
			if err != nil {
				t.Fatal(err)
			}
			doc := description(t, minor)
			registries, shopHost := newOracle(t)
			for _, tt := range []struct{ method, path, ask, body string }{
				{"get", "/containers/json", "/containers/json?all=1&size=1", ""},
				{"get", "/containers/{id}/json", "/containers/web/json?size=1", ""},
				{"get", "/containers/{id}/top", "/containers/web/top", ""},
				{"get", "/containers/{id}/stats", "/containers/web/stats?stream=0&one-shot=1", ""},
				{"post", "/containers/create", "/containers/create", `{"Image":"a","HostConfig":{"NetworkMode":"none"}}`},
				{"post", "/containers/{id}/update", "/containers/web/update", `{"Memory":10000000}`},
				{"post", "/containers/{id}/wait", "/containers/web/wait", ""},
				{"post", "/containers/prune", "/containers/prune", ""},
				{"post", "/containers/{id}/exec", "/containers/web/exec", `{"Cmd":["a"]}`},
				{"get", "/exec/{id}/json", "/exec/e1/json", ""},
				{"get", "/info", "/info", ""},
				{"get", "/version", "/version", ""},
				{"get", "/images/json", "/images/json?shared-size=1", ""},
				{"get", "/images/{name}/json", "/images/busybox/json", ""},
				{"get", "/images/{name}/history", "/images/busybox/history", ""},
				{"delete", "/images/{name}", "/images/busybox", ""},
				{"post", "/images/prune", "/images/prune", ""},
				{"get", "/images/json", "/images/json?manifests=1", ""},
				{"get", "/images/{name}/json", "/images/busybox/json?manifests=1", ""},
				{"get", "/images/search", "/images/search?term=tomcat", ""},
				{"post", "/auth", "/auth", `{"username":"ann"}`},
				{"get", "/distribution/{name}/json", "/distribution/" + shopHost + "/a:one/json", ""},
				{"get", "/images/{name}/attestations", "/images/busybox/attestations", ""},
				{"get", "/system/df", "/system/df?verbose=1", ""},
				{"get", "/networks", "/networks", ""},
				{"get", "/networks/{id}", "/networks/front", ""},
				{"post", "/networks/create", "/networks/create", `{"Name":"n"}`},
				{"post", "/networks/prune", "/networks/prune", ""},
				{"get", "/volumes", "/volumes", ""},
				{"get", "/volumes/{name}", "/volumes/data", ""},
				{"post", "/volumes/create", "/volumes/create", `{"Name":"n1"}`},
				{"post", "/volumes/prune", "/volumes/prune", ""},
				{"get", "/events", "/events?since=1&until=1772600767.100", ""},
			} {
				f := newFake()
				f.info = networked(f.info)
				f.stats = statsSample()
				f.waits <- exitSample()
				srv, web, bus := serve(t, f)
				a := newAlbum()
				describeParts(a)
				srv.cfg.Images, srv.cfg.Networks, srv.cfg.Volumes, srv.cfg.Registries = a, newNets(), newShelf(), registries
				bus.Publish(eventOf("container", "start"))
				if version < "1.41" && strings.Contains(tt.ask, "one-shot") {
					continue // would take a second
				}
				if version < "1.30" && strings.Contains(tt.ask, "/distribution/") || version < "1.55" && strings.Contains(tt.ask, "/attestations") {
					continue // was not there yet
				}
				code, text, _ := ask(t, web, strings.ToUpper(tt.method), "/v"+version+tt.ask, tt.body)
				if code/100 != 2 {
					t.Errorf("%s %s: %d %s", tt.method, tt.path, code, text)
					continue
				}
				i := slices.IndexFunc(doc.Operations, func(o swagger.Operation) bool { return o.Key() == strings.ToUpper(tt.method)+" "+tt.path })
				if i < 0 {
					t.Errorf("%s %s is not described", tt.method, tt.path)
					continue
				}
				def := doc.Operations[i].Schema(code)
				if def == nil {
					t.Errorf("%s %s has no schema for %d", tt.method, tt.path, code)
					continue
				}
				line, _, _ := strings.Cut(text, "\n")
				for _, fault := range doc.Check(def, []byte(line)) {
					if strings.HasSuffix(fault, ": unknown") && minor < 52 {
						continue
					}
					if !slices.ContainsFunc(knownDifferences, func(k string) bool { return strings.Contains(fault, k) }) {
						t.Errorf("%s %s%s", tt.method, tt.path, fault)
					}
				}
			}
		})
	}
}
