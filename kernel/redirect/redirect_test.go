package redirect

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"berth/kernel/netns"
	"berth/kernel/netns/alone"
)

func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

// What is loaded is what is printed, whether it replaces something or not.
func TestLoad(t *testing.T) {
	alone.Need(t)
	path := filepath.Join(t.TempDir(), "ns")
	if err := netns.CreateWith(path, alone.LoopbackUp); err != nil {
		t.Fatal(err)
	}
	defer netns.Remove(path)
	ns, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	r := Redirect{Table: "x", Addr: netip.MustParseAddr("127.0.0.11"), Port: 53, UDP: 40000, TCP: 40001}
	for _, fresh := range []bool{true, false} {
		r.UDP++
		start := time.Now()
		if err := r.Load(ns, fresh); err != nil {
			t.Fatal(err)
		}
		t.Logf("loaded in %v", time.Since(start))
		nft, err := exec.LookPath("nft")
		if err != nil {
			t.Skipf("needs nft: %v", err)
		}
		var out []byte
		err = netns.Do(ns, func() (err error) {
			out, err = exec.Command(nft, "list", "table", "ip", "x").Output()
			return err
		})
		if err != nil || string(out) != r.String() {
			t.Errorf("%v\n%s\nwant\n%s", err, out, r)
		}
	}
}
