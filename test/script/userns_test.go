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

// withSubids gives the directory of programs for an engine that sees other subordinate ids than the machine has, when the first
// argument asks for it: "subids=USER:START:COUNT". Its berthd puts its own files over the machine's, where nobody else sees it.
func withSubids(t *testing.T, bin string, args []string) (string, []string) {
	t.Helper()
	if len(args) == 0 || !strings.HasPrefix(args[0], "subids=") {
		return bin, args
	}
	dir := t.TempDir()
	ids := filepath.Join(dir, "subids")
	// A later engine joins the mount namespace of the keeper, which sees what is mounted there.
	script := "#!/bin/sh\nexport IDS=" + ids + " REAL=" + bin + `/berthd
root=$(echo " $*" | sed 's/.* --exec-root \([^ ]*\).*/\1/')
for p in /proc/[0-9]*; do
	case $(tr '\000' ' ' <$p/cmdline 2>/dev/null) in *berth-keeper*"$root "*) exec nsenter -t ${p#/proc/} -m $REAL "$@";; esac
done
exec unshare -m --propagation slave sh -c 'for f in /etc/subuid /etc/subgid; do mount --bind $IDS $f; done; exec $REAL "$@"' sh "$@"
`
	for name, text := range map[string]string{ids: strings.TrimPrefix(args[0], "subids=") + "\n", filepath.Join(dir, "berthd"): script} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat("/etc/subuid"); err != nil {
		t.Skipf("needs /etc/subuid: install the package uidmap (%v)", err)
	}
	return dir, args[1:]
}
