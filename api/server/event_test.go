package server

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"berth/base/event"
)

func eventOf(kind, action string, attributes ...string) event.Event {
	e := event.Event{Type: kind, Action: action, ID: webID, Attributes: map[string]string{"name": "web", "image": "busybox:1.36"}, Time: at}
	for i := 0; i+1 < len(attributes); i += 2 {
		e.Attributes[attributes[i]] = attributes[i+1]
	}
	return e
}

func TestEventShapes(t *testing.T) {
	for _, tt := range []struct{ path, accept, want, kind string }{
		{"/events", "", `{"Type":"container","Action":"start","Actor":{"ID":"` + webID + `","Attributes":{"image":"busybox:1.36","name":"web"}},"scope":"local","time":1772600767,"timeNano":1772600767000000089}`, "application/json"},
		{"/v1.51/events", "", `{"status":"start","id":"` + webID + `","from":"busybox:1.36","Type":"container"`, "application/json"},
		{"/events", "application/x-ndjson", `{"Type":`, "application/x-ndjson"},
		{"/events", "text/html, application/json-seq;q=0.5", "\x1e{\"Type\":", "application/json-seq"},
		{"/events", "application/jsonl", `{"Type":`, "application/jsonl"},
	} {
		_, web, bus := serve(t, newFake())
		r, _ := http.NewRequest("GET", web.URL+tt.path, nil)
		if tt.accept != "" {
			r.Header.Set("Accept", tt.accept)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		bus.Publish(eventOf("container", "start"))
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		resp.Body.Close()
		if err != nil || !strings.HasPrefix(line, tt.want) || resp.Header.Get("Content-Type") != tt.kind {
			t.Errorf("%s %s: %q %v %s", tt.path, tt.accept, line, err, resp.Header.Get("Content-Type"))
		}
	}
}

func TestPastEvents(t *testing.T) {
	_, web, bus := serve(t, newFake())
	bus.Publish(eventOf("container", "create"))
	bus.Publish(eventOf("image", "create"))
	bus.Publish(eventOf("image", "tag"))
	_, text, _ := ask(t, web, "GET", "/v1.56/events?since=1&until=1772600767.100", "")
	if strings.Count(text, "\n") != 3 {
		t.Errorf("%s", text)
	}
	if _, text, _ = ask(t, web, "GET", "/v1.56/events?since=0&until=1772600767.100", ""); strings.Count(text, "\n") != 3 {
		t.Errorf("since 0 is 1970, as in Docker: %q", text)
	}
	if _, text, _ = ask(t, web, "GET", "/v1.56/events?until=0", ""); text != "" {
		t.Errorf("until 1970 there was nothing: %q", text)
	}
	_, text, _ = ask(t, web, "GET", "/v1.45/events?until=1772600767.100", "")
	if strings.Count(text, "\n") != 2 {
		t.Errorf("an image's creation is news of 1.46:\n%s", text)
	}
}

func TestEventFilters(t *testing.T) {
	for _, tt := range []struct {
		e       event.Event
		filters string
		want    bool
	}{
		{eventOf("container", "start"), ``, true},
		{eventOf("container", "start"), `{"event":[]}`, true},
		{eventOf("container", "start"), `{"event":["stop","start"]}`, true},
		{eventOf("container", "start"), `{"event":["stop"]}`, false},
		{eventOf("container", "exec_create: sh -c true"), `{"event":["exec_create"]}`, true},
		{eventOf("container", "start"), `{"type":["container"],"container":["web"]}`, true},
		{eventOf("container", "start"), `{"container":["91eb2d"]}`, true},
		{eventOf("container", "start"), `{"container":["/web"]}`, true},
		{eventOf("container", "start"), `{"container":["we"]}`, true},
		{eventOf("container", "start"), `{"container":["other","eb"]}`, false},
		{eventOf("container", "start"), `{"container":["other",""]}`, true}, // a shell's variable that is empty
		{eventOf("container", "start"), `{"volume":["web"]}`, true},         // Docker asks for no type
		{eventOf("image", "tag"), `{"container":["busybox"]}`, false},
		{eventOf("container", "start"), `{"image":["busybox"]}`, true},
		{eventOf("container", "start"), `{"image":["busybox:1.36"]}`, true},
		{eventOf("container", "start"), `{"image":["busy"]}`, false},
		{eventOf("container", "start", "color", "red"), `{"label":["color","color=red"]}`, true},
		{eventOf("container", "start", "color", "red"), `{"label":["color=blue"]}`, false},
		{eventOf("container", "start"), `{"scope":["swarm"]}`, false},
	} {
		f, err := parseFilters(tt.filters)
		if err != nil {
			t.Fatal(err)
		}
		if got := matchEvent(tt.e, f); got != tt.want {
			t.Errorf("%s of %s: %v", tt.filters, tt.e.Action, got)
		}
	}
}
