package wire

import (
	"errors"
	"testing"
)

// The lines are what dockerd 26.1 (API 1.45) and 29 send.
func TestProgressLines(t *testing.T) {
	aux := struct {
		Tag    string
		Digest string
		Size   int
	}{"one", "sha256:8b80", 523}
	for _, tt := range []struct {
		step Step
		v    Version
		want string
	}{
		{Step{Status: "The push refers to repository [127.0.0.1:5000/a]"}, 45, `{"status":"The push refers to repository [127.0.0.1:5000/a]"}`},
		{Step{ID: "one", Status: "Pulling from a"}, 45, `{"status":"Pulling from a","id":"one"}`},
		{Step{ID: "39a7", Status: "Pulling fs layer"}, 45, `{"status":"Pulling fs layer","progressDetail":{},"id":"39a7"}`},
		{Step{ID: "39a7", Status: "Downloading", Current: 147, Total: 147}, 45,
			`{"status":"Downloading","progressDetail":{"current":147,"total":147},"progress":"[==================================================\u003e]     147B/147B","id":"39a7"}`},
		{Step{ID: "39a7", Status: "Pushing", Current: 512, Total: 3}, 51,
			`{"status":"Pushing","progressDetail":{"current":512,"total":3},"progress":"[==================================================\u003e]     512B","id":"39a7"}`},
		{Step{ID: "39a7", Status: "Downloading", Current: 1 << 20, Total: 5 << 20}, 24,
			`{"status":"Downloading","progressDetail":{"current":1048576,"total":5242880},"progress":"[==========\u003e                                        ]  1.049MB/5.243MB","id":"39a7"}`},
		{Step{ID: "39a7", Status: "Downloading", Current: 1 << 20}, 24, `{"status":"Downloading","progressDetail":{"current":1048576},"progress":" 1.049MB","id":"39a7"}`},
		{Step{ID: "39a7", Status: "Downloading", Current: 1, Total: 5}, 52, `{"status":"Downloading","progressDetail":{"current":1,"total":5},"id":"39a7"}`},
		{Step{Aux: aux}, 45, `{"progressDetail":{},"aux":{"Tag":"one","Digest":"sha256:8b80","Size":523}}`},
		{Step{Status: "x", Aux: func() {}}, 45, ``},
	} {
		if got := string(ProgressLine(tt.step, tt.v)); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
	if got, want := string(ErrorLine(errors.New("x <y>"))), `{"errorDetail":{"message":"x \u003cy\u003e"},"error":"x \u003cy\u003e"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
