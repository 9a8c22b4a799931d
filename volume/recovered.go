package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Recovered tells which containers run, once the engine knows after its start. What those have mounted is theirs; what others had is
// unmounted, behind the answer where that takes longer than a moment: a driver or a server may not answer. Close ends it.
func (v *Volumes) Recovered(running func(containerID string) bool) {
	ended := map[string][]string{} // users by volume
	for name, users := range v.left() {
		for user := range users {
			if running(user) {
				v.use(name, user)
			} else {
				ended[name] = append(ended[name], user)
			}
		}
	}
	var all sync.WaitGroup
	for name, users := range ended {
		all.Go(func() { v.end(name, users) })
	}
	done := make(chan struct{})
	v.work.Go(func() {
		all.Wait()
		close(done)
	})
	select {
	case <-done:
	case <-time.After(200 * time.Millisecond):
	}
}

// end unmounts a volume for users that have ended.
func (v *Volumes) end(name string, users []string) {
	release, err := v.turns.Take(v.stopped, name)
	if err != nil {
		return
	}
	defer release()
	for _, user := range users {
		if v.uses(name, user) {
			continue // it was started again meanwhile
		}
		if err := v.unmount(v.stopped, name, user); err != nil {
			v.log.Error("volume of a container that does not run stays mounted", "volume", name, "container", user, "error", err)
		}
	}
}

// left lists the uses that an earlier engine noted: by volume, the users.
func (v *Volumes) left() map[string]map[string]bool {
	uses := map[string]map[string]bool{}
	add := func(name, user string) {
		if uses[name] == nil {
			uses[name] = map[string]bool{}
		}
		uses[name][user] = true
	}
	notes, err := v.notes.All()
	if err != nil {
		v.log.Error("users of volumes cannot be read", "error", err)
	}
	for name, users := range notes {
		for _, user := range users {
			add(name, user)
		}
		if len(users) == 0 { // perhaps still mounted: a use that ended half
			add(name, "nobody")
		}
	}
	for _, p := range v.pins() {
		add(p[1], p[0])
	}
	return uses
}

// pins lists user and volume of every pin: pins/USER/NAME.
func (v *Volumes) pins() [][2]string {
	var list [][2]string
	at := filepath.Join(v.cfg.RunRoot, "pins")
	users, err := os.ReadDir(at)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		v.log.Error("pins of volumes cannot be read", "error", err)
	}
	for _, user := range users {
		names, err := os.ReadDir(filepath.Join(at, user.Name()))
		if err != nil {
			v.log.Error("pins of volumes cannot be read", "error", err)
		}
		for _, name := range names {
			list = append(list, [2]string{user.Name(), name.Name()})
		}
	}
	return list
}
