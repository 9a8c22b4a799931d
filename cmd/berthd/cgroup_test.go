package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnitGroup(t *testing.T) {
	for _, c := range []struct {
		text, group string
		active      bool
	}{
		{"ActiveState=active\nControlGroup=/system.slice/berth-containers.service\n", "/system.slice/berth-containers.service", true},
		{"ControlGroup=/system.slice/x.service\nActiveState=active", "/system.slice/x.service", true},
		{"ActiveState=failed\nControlGroup=/system.slice/x.service\n", "/system.slice/x.service", false}, // with containers left in it
		{"ActiveState=active\nControlGroup=\n", "", false},
		{"ActiveState=active\nControlGroup=/\n", "", false},
		{"ActiveState=active\nControlGroup=x\n", "", false},
		{"", "", false},
	} {
		if group, active := parseUnitGroup(c.text); group != c.group || active != c.active {
			t.Errorf("%q: %q, %v", c.text, group, active)
		}
	}
}

// The installed unit and the transient one run the same, and a shell can read it.
func TestHolder(t *testing.T) {
	unit, err := os.ReadFile(filepath.Join("..", "..", "install", "systemd", "berth-containers.service"))
	if err != nil {
		t.Skip("needs the source tree, which a test binary in the virtual machine has not: " + err.Error())
	}
	if want := "ExecStart=/bin/sh -c '" + holder + "'\n"; !strings.Contains(string(unit), want) {
		t.Errorf("the unit has no %s", want)
	}
	if out, err := exec.Command("/bin/sh", "-n", "-c", strings.ReplaceAll(holder, "$$", "$")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, a := range holderArgs("x.service") {
		if p, ok := strings.CutPrefix(a, "--property="); ok && !strings.Contains(string(unit), p+"\n") {
			t.Errorf("the unit has no %s", p)
		}
	}
}

func TestContainerUnit(t *testing.T) {
	if a, b := containerUnit(""), containerUnit("0a1b2c"); a != "berth-containers.service" || b != "berth-containers-0a1b2c.service" {
		t.Error(a, b)
	}
}

// The installed keeper serves one exec root: an engine with another must not wait for it.
func TestKeeperUnit(t *testing.T) {
	if a, b := keeperUnit(config{ExecRoot: "/run/berth"}), keeperUnit(config{ExecRoot: "/run/other"}); a != "berth-keeper.service" || b != "" {
		t.Error(a, b)
	}
}
