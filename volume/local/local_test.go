package local_test

import (
	"testing"

	"berth/volume"
	"berth/volume/volumetest"
)

func TestMain(m *testing.M) { volumetest.Main(m) }

func open(t *testing.T, root, run string) *volume.Volumes {
	t.Helper()
	v, err := volume.Open(t.Context(), volume.Config{Root: root, RunRoot: run})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPlainDirectories(t *testing.T) {
	volumetest.Run(t, volumetest.Subject{Driver: "local", Open: open})
}
