package layer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/kernel/tree"
)

// The skeleton is the topmost lower directory of every container: what Docker makes anew in an init layer for each
// container, made once and shared. Its files hide those of the image, as Docker's do. Its directories would show their own
// owner and mode instead of the image's, so there is one skeleton for each set of attributes that images come with;
// nearly all have root:root 0755. It is also the place to put right what implied directories show, see implied.go.
var (
	skeletonDirs  = []string{"dev", "etc", "proc", "sys"} // whose attributes are the image's
	skeletonBelow = []string{"dev/pts", "dev/shm"}
	skeletonFiles = []string{".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"}
	skeletonLinks = map[string]string{"etc/mtab": "/proc/mounts"}
)

// chainFacts is what containers need to know of a chain, found out once.
type chainFacts struct {
	lower    []string   // trees, the topmost first
	root     Attributes // of the root directory
	skeleton string     // key
	fixes    string     // key of the plain skeleton with the directories that look wrong without it; "": none does
}

var plainDir = Attributes{Mode: 0o755}

// facts finds out about a chain whose diffs the caller holds.
func (s *Store) facts(chain []digest.Digest) (*chainFacts, error) {
	key := chainKey(chain)
	s.mu.Lock()
	if f := s.chains[key]; f != nil {
		s.mu.Unlock()
		return f, nil
	}
	f := &chainFacts{root: plainDir}
	rootKnown := false
	var implied [][]string // of each lower, likewise the topmost first
	shown, err := s.stacked(chain)
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	for _, l := range shown {
		f.lower = append(f.lower, s.path("d", l.short, "fs"))
		implied = append(implied, l.info.Implied)
		if l.info.Root != nil && !rootKnown {
			f.root, rootKnown = *l.info.Root, true
		}
	}
	s.mu.Unlock()
	attributes, err := dirAttributes(f.lower)
	if err != nil {
		return nil, err
	}
	if err := s.addImplied(attributes, f.lower, implied); err != nil {
		return nil, err
	}
	fixes := map[string]Attributes{}
	if err := s.addImplied(fixes, f.lower, implied); err != nil {
		return nil, err
	}
	if len(fixes) > 0 {
		if f.fixes, err = s.skeletonFor(fixes, true); err != nil {
			return nil, err
		}
	}
	if f.skeleton, err = s.skeletonFor(attributes, false); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.chains[key] = f
	s.mu.Unlock()
	return f, nil
}

// stacked gives the diffs of a chain that are to be mounted, the topmost first. mu is held.
func (s *Store) stacked(chain []digest.Digest) (shown []*diff, err error) {
	seen := map[digest.Digest]bool{}
	for i := len(chain) - 1; i >= 0; i-- {
		l := s.diffs[chain[i]]
		switch {
		case l == nil:
			return nil, missing(chain[i])
		case seen[chain[i]]: // what a diff shows twice shows from its topmost place; overlayfs takes no directory twice (ELOOP)
			continue
		case chain[i] == EmptyDiff && (i > 0 || len(shown) > 0):
			continue
		}
		seen[chain[i]] = true
		shown = append(shown, l)
		if l.info.OpaqueRoot {
			return shown, nil // nothing below shows through
		}
	}
	return shown, nil
}

func chainKey(chain []digest.Digest) string {
	h := sha256.New()
	for _, d := range chain {
		h.Write([]byte(d))
	}
	return string(h.Sum(nil))
}

// dirAttributes finds what the skeleton's directories look like in a stack of trees, the topmost first.
func dirAttributes(lower []string) (map[string]Attributes, error) {
	found := map[string]Attributes{}
	for _, name := range skeletonDirs {
		found[name] = plainDir
	}
	decided := map[string]bool{}
	for _, path := range lower {
		d, err := tree.OpenDir(path)
		if err != nil {
			return nil, err
		}
		for _, name := range skeletonDirs {
			if decided[name] {
				continue
			}
			st, err := d.Stat(name)
			if tree.Missing(err) {
				continue
			}
			if err != nil {
				d.Close()
				return nil, err
			}
			decided[name] = true // a whiteout, or a link or file that the skeleton replaces, ends the search as well
			if st.IsDir() {
				found[name] = Attributes{Mode: st.Mode & tree.PermMask, UID: st.UID, GID: st.GID}
			}
		}
		d.Close()
	}
	return found, nil
}

// skeletonFor gives the key of a skeleton with these attributes, making it where there is none.
// A plain one has nothing but these directories.
func (s *Store) skeletonFor(attributes map[string]Attributes, plain bool) (string, error) {
	key, err := skeletonKey(attributes, plain)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	there := s.skeletons[key]
	s.mu.Unlock()
	if there {
		return key, nil
	}
	tmp := s.path("tmp", newName())
	if err := makeSkeleton(tmp, attributes, plain); err != nil {
		s.trash.take(tmp)
		return "", fault.In(err, "make skeleton")
	}
	s.naming.Lock()
	defer s.naming.Unlock()
	s.mu.Lock()
	there = s.skeletons[key]
	s.mu.Unlock()
	if there {
		return key, s.trash.take(tmp)
	}
	if err := os.Rename(tmp, s.path("s", key)); err != nil {
		return "", fault.In(err, "make skeleton")
	}
	s.mu.Lock()
	s.skeletons[key] = true
	s.mu.Unlock()
	return key, nil
}

// skeletonKey names a skeleton by what its directories look like.
func skeletonKey(attributes map[string]Attributes, plain bool) (string, error) {
	text, err := json.Marshal(attributes) // keys come sorted
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	key := hex.EncodeToString(sum[:8])
	if plain {
		key = plainPrefix + key
	}
	return key, nil
}

// plainPrefix marks skeletons that hold directories only, for mounts that are no container's.
const plainPrefix = "plain-"

func makeSkeleton(dir string, attributes map[string]Attributes, plain bool) error {
	below, files, links := skeletonBelow, skeletonFiles, skeletonLinks
	if plain {
		below, files, links = nil, nil, nil
	}
	root, err := makeDir(dir, "fs")
	if err != nil {
		return err
	}
	defer root.Close()
	fs := filepath.Join(dir, "fs")
	names := slices.Sorted(maps.Keys(attributes)) // parents before what is in them
	for _, name := range append(slices.Clone(names), below...) {
		if err := os.Mkdir(filepath.Join(fs, name), 0o755); err != nil && !os.IsExist(err) {
			return err
		}
	}
	for _, name := range files {
		f, err := os.OpenFile(filepath.Join(fs, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		if err := f.Chmod(0o755); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(fs, name)); err != nil {
			return err
		}
	}
	for _, name := range names {
		a := attributes[name]
		d, _, err := root.Open(name)
		if err != nil {
			return err
		}
		err = d.Chown("", int(a.UID), int(a.GID))
		if err == nil {
			err = d.Chmod("", a.Mode)
		}
		d.Close()
		if err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(dir, "skeleton.json"), attributes)
}

// recoverSkeletons keeps those that are whole. They are not synced when they are made: a power cut may leave a
// torn one, which is cheaper to make again than to protect.
func (s *Store) recoverSkeletons() error {
	names, err := os.ReadDir(s.path("s"))
	if err != nil {
		return err
	}
	for _, n := range names {
		if s.skeletonWhole(n.Name()) {
			s.skeletons[n.Name()] = true
			continue
		}
		if err := s.trash.take(s.path("s", n.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) skeletonWhole(key string) bool {
	root := s.path("s", key, "fs")
	var attributes map[string]Attributes
	if err := readJSON(s.path("s", key, "skeleton.json"), &attributes); err != nil {
		return false
	}
	plain := strings.HasPrefix(key, plainPrefix)
	if k, err := skeletonKey(attributes, plain); err != nil || k != key {
		return false
	}
	d, err := tree.OpenDir(root)
	if err != nil {
		return false
	}
	defer d.Close()
	for name, a := range attributes {
		st, ok, err := d.Lookup(name)
		if err != nil || !ok || (Attributes{Mode: st.Mode & tree.PermMask, UID: st.UID, GID: st.GID}) != a {
			return false
		}
	}
	if plain {
		return true
	}
	for _, name := range append(slices.Clone(skeletonBelow), skeletonFiles...) {
		if _, ok, err := d.Lookup(name); err != nil || !ok {
			return false
		}
	}
	for name, target := range skeletonLinks {
		if at, err := os.Readlink(filepath.Join(root, name)); err != nil || at != target {
			return false
		}
	}
	return true
}
