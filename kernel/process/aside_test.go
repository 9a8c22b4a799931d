package process

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAside(t *testing.T) {
	var all sync.WaitGroup
	for range 200 {
		all.Add(1)
		Aside(func() {
			defer all.Done()
			if unix.Gettid() == unix.Getpid() {
				t.Error("the process's first thread is used up")
			}
		})
	}
	all.Wait()
}
