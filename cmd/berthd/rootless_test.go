package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestOutsideManager: from a login's session a process has to go through systemd to be among the user's units.
func TestOutsideManager(t *testing.T) {
	for own, want := range map[string]bool{
		"/user.slice/user-1000.slice/user@1000.service/app.slice/berth.service": false,
		"/user.slice/user-1000.slice/user@1000.service":                         false,
		"/user.slice/user-1000.slice/session-3.scope":                           true,
		"/user.slice/user-100.slice/user@100.service/app.slice/berth.service":   true,
		"": true,
	} {
		if got := outsideManager(own, 1000); got != want {
			t.Errorf("%q: %v", own, got)
		}
	}
}

// TestLeaveCgroup on ordinary directories: the leaf goes, and a missing one is no matter.
func TestLeaveCgroup(t *testing.T) {
	leaf := filepath.Join(t.TempDir(), "engine")
	if err := os.Mkdir(leaf, 0o755); err != nil {
		t.Fatal(err)
	}
	leaveCgroup(leaf)
	if _, err := os.Stat(leaf); !os.IsNotExist(err) {
		t.Errorf("it is left: %v", err)
	}
	leaveCgroup(leaf)
}
