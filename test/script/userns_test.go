package script

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUserNamespaces tries containers in user namespaces with the stock command line: which ids they have, what of them is seen from
// inside, outside and on the disk, and what they cannot reach.
func TestUserNamespaces(t *testing.T) { worldScripts(t, "userns") }

// withOwnFiles gives the directory of programs for an engine that sees something of its own where the others see the machine's, when the first
// argument asks for it: other subordinate ids by "subids=USER:START:COUNT", the plugins of another directory by "plugins=DIR". Its berthd puts that
// over the machine's, where nobody else sees it.
func withOwnFiles(t *testing.T, bin string, args []string) (string, []string) {
	t.Helper()
	if len(args) == 0 {
		return bin, args
	}
	var own string
	var over []string
	switch kind, value, _ := strings.Cut(args[0], "="); kind {
	case "subids":
		own, over = filepath.Join(t.TempDir(), "subids"), []string{"/etc/subuid", "/etc/subgid"}
		if err := os.WriteFile(own, []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat("/etc/subuid"); err != nil {
			t.Skipf("needs /etc/subuid: install the package uidmap (%v)", err)
		}
	case "plugins":
		own, over = value, []string{"/run/docker/plugins"}
		if err := os.MkdirAll(over[0], 0o755); err != nil {
			t.Fatal(err)
		}
	default:
		return bin, args
	}
	// A later engine joins the mount namespace of the keeper, which sees what is mounted there.
	script := "#!/bin/sh\nexport OWN=" + own + " OVER='" + strings.Join(over, " ") + "' REAL=" + bin + `/berthd
root=$(echo " $*" | sed 's/.* --exec-root \([^ ]*\).*/\1/')
for p in /proc/[0-9]*; do
	case $(tr '\000' ' ' <$p/cmdline 2>/dev/null) in *berth-keeper*"$root "*) exec nsenter -t ${p#/proc/} -m $REAL "$@";; esac
done
exec unshare -m --propagation slave sh -c 'for f in $OVER; do mount --bind $OWN $f; done; exec $REAL "$@"' sh "$@"
`
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "berthd"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, args[1:]
}
