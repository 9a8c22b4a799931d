package archive

import (
	"strconv"
	"strings"

	"berth/image/archive/split"
	"berth/kernel/tree"
)

// Opener gives split.Rebuild the files of an unpacked archive: from the tree, or from the shadows where a later
// entry took a file's place. shadows may be nil when there are none.
func Opener(root, shadows *tree.Dir, list []Shadow) func(position int, name string) (split.File, error) {
	return func(position int, name string) (split.File, error) {
		// The first one after the record holds what the record saw: later ones hold what came later.
		for _, s := range list {
			if s.Before <= position {
				continue
			}
			if name == s.Path {
				return openPlain(shadows, strconv.Itoa(s.N))
			}
			if rest, ok := strings.CutPrefix(name, s.Path+"/"); ok {
				return openPlain(shadows, strconv.Itoa(s.N)+"/"+rest)
			}
		}
		return openPlain(root, name)
	}
}

func openPlain(dir *tree.Dir, name string) (split.File, error) {
	f, err := dir.OpenFile(name)
	if err != nil {
		return nil, err // not f: a nil pointer would make an interface that is not nil
	}
	return f, nil
}
