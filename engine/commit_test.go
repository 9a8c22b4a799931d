package engine

import (
	"reflect"
	"testing"

	"berth/image"
)

// What a client says of the image counts; where it says nothing the container does.
func TestFillUp(t *testing.T) {
	ten := 10
	have := image.RunConfig{
		User: "u", Env: []string{"A=1", "B=2"}, Entrypoint: []string{"/e"}, Cmd: []string{"c"}, WorkingDir: "/w", Labels: map[string]string{"a": "1", "b": "2"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}}, StopSignal: "TERM", StopTimeout: &ten,
	}
	for _, tt := range []struct {
		name       string
		wish, want image.RunConfig
	}{
		{"nothing", image.RunConfig{}, have},
		{"a command", image.RunConfig{Cmd: []string{"x"}}, with(have, func(c *image.RunConfig) { c.Cmd = []string{"x"} })},
		{"an entrypoint: the command goes", image.RunConfig{Entrypoint: []string{"/x"}}, with(have, func(c *image.RunConfig) { c.Entrypoint, c.Cmd = []string{"/x"}, nil })},
		{"more of what is a set", image.RunConfig{Env: []string{"B=3", "C=4"}, Labels: map[string]string{"b": "3"}, ExposedPorts: map[string]struct{}{"81/tcp": {}}}, with(have, func(c *image.RunConfig) {
			c.Env, c.Labels = []string{"B=3", "C=4", "A=1"}, map[string]string{"a": "1", "b": "3"}
			c.ExposedPorts = map[string]struct{}{"80/tcp": {}, "81/tcp": {}}
		})},
	} {
		if got := fillUp(tt.wish, have); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	if have.Labels["b"] != "2" || have.Env[1] != "B=2" {
		t.Error("the container's configuration was changed")
	}
}

func with(c image.RunConfig, change func(*image.RunConfig)) image.RunConfig {
	change(&c)
	return c
}

// A running container stands still while it is committed, and goes on, also when the commit fails.
func TestCommitPauses(t *testing.T) {
	w := newWorld(t)
	id := w.run("committed", spec("sleep 100"))
	got, err := w.Commit(t.Context(), "committed", CommitOptions{Ref: "x", Comment: "m", Pause: true})
	if err != nil || got == "" {
		t.Fatal(got, err)
	}
	if o := w.images.committed[0]; o.ContainerID != id || o.Ref != "x" || o.Comment != "m" || len(o.Config.Cmd)+len(o.Config.Entrypoint) == 0 {
		t.Errorf("%+v", o)
	}
	i, err := w.Inspect(t.Context(), id)
	if err != nil || i.State.Paused || !i.State.Running {
		t.Errorf("%+v %v", i.State, err)
	}
	if _, err := w.Commit(t.Context(), "nobody", CommitOptions{}); err == nil {
		t.Error("a container that is not there was committed")
	}
}
