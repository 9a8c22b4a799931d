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
		release, err := v.turns.Take(ctx, name)
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
