package mount

import (
	"os"
	"sync"
	"testing"
)

// TestPrivateLeavesTheProcess: the process's first thread, whose mounts /proc/self/mountinfo tells, keeps its namespace: all that asks what is
// mounted asks there.
func TestPrivateLeavesTheProcess(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			release, err := Private(func() error { return nil })
			if err != nil {
				t.Skip("needs CAP_SYS_ADMIN: ", err)
			}
			release()
		})
	}
	all.Wait()
	if now, _ := os.Readlink("/proc/self/ns/mnt"); now != before {
		t.Errorf("the process is in %s, was in %s", now, before)
	}
}
