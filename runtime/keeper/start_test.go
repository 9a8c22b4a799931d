package keeper

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A systemd that is too slow, on a machine that is overloaded, is told as what it is.
func TestSlowSystemd(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\nexec sleep 100\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "systemd-run"), []byte("#!/bin/sh\necho no bus; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	cfg := StartConfig{Unit: "berth-keeper.service", Timeout: 50 * time.Millisecond}
	if err := cfg.throughSystemd(ctx, nil); err == nil || err.Error() != "start the keeper's unit berth-keeper.service: systemd has not done it within 50ms; is the machine overloaded?" {
		t.Errorf("too slow: %v", err)
	}
	cfg.Unit = ""
	if err := cfg.throughSystemd(t.Context(), nil); err == nil || err.Error() != "start the keeper through systemd-run: exit status 1: no bus" {
		t.Errorf("refused: %v", err)
	}
}
