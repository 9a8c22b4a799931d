package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Recovered tells which containers run, once the engine knows after its start. What other containers had mounted is unmounted;
// what those have stays and is theirs.
func (v *Volumes) Recovered(running func(containerID string) bool) {
	ctx := context.Background()
	for name, users := range v.left() {
		release, err := v.turns.take(ctx, name)
		if err != nil {
			continue
		}
		for user := range users {
			if running(user) {
				v.use(name, user)
				continue
			}
			if err := v.unmount(ctx, name, user); err != nil {
				v.log.Error("volume of a container that does not run stays mounted", "volume", name, "container", user, "error", err)
			}
		}
		release()
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
	// pins/USER/NAME and users/NAME/USER
	for _, p := range v.pairs("pins") {
		add(p[1], p[0])
	}
	for _, p := range v.pairs("users") {
		add(p[0], p[1])
	}
	return uses
}

// pairs lists the directories of the second level.
func (v *Volumes) pairs(dir string) [][2]string {
	var list [][2]string
	at := filepath.Join(v.cfg.RunRoot, dir)
	first, err := os.ReadDir(at)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		v.log.Error("uses of volumes cannot be read", "error", err)
	}
	for _, a := range first {
		second, err := os.ReadDir(filepath.Join(at, a.Name()))
		if err != nil {
			v.log.Error("uses of volumes cannot be read", "error", err)
		}
		for _, b := range second {
			list = append(list, [2]string{a.Name(), b.Name()})
		}
		if len(second) == 0 && dir == "users" {
			// Noted nobody, but perhaps mounted: a use that ended half.
			list = append(list, [2]string{a.Name(), "nobody"})
		}
	}
	return list
}
