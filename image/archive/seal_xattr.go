package archive

import (
	"strings"

	"berth/kernel/tree"
)

// xattrs are the extended attributes of one file.
type xattrs struct {
	pax    map[string]string // what goes into the archive, nil for nothing
	opaque bool
}

// withXattrs is a file or a directory.
type withXattrs interface {
	Xattrs() ([]string, error)
	Xattr(attr string) ([]byte, bool, error)
	RemoveXattr(attr string) error
}

// own is a directory's own attributes.
type own struct{ *tree.Dir }

func (o own) Xattrs() ([]string, error) { return o.OwnXattrs() }

func (o own) Xattr(attr string) ([]byte, bool, error) { return o.OwnXattr(attr) }

// xattrs reads a file's attributes and takes overlayfs's own away: they speak of where the file came from, not of what it is.
func (s *sealer) xattrs(f withXattrs) (x xattrs, err error) {
	names, err := f.Xattrs()
	if err != nil || len(names) == 0 {
		return x, err
	}
	for _, a := range names {
		if strings.HasPrefix(a, "trusted.overlay.") || strings.HasPrefix(a, "user.overlay.") {
			if a == s.o.Whiteouts.OpaqueAttr() {
				v, _, err := f.Xattr(a)
				if err != nil {
					return x, err
				}
				x.opaque = string(v) == "y"
			}
			if err := f.RemoveXattr(a); err != nil {
				return x, err
			}
			continue
		}
		if err := x.take(f, a); err != nil {
			return x, err
		}
	}
	return x, nil
}

func portableXattrs(f withXattrs) (x xattrs, err error) {
	names, err := f.Xattrs()
	for _, a := range names {
		if err == nil {
			err = x.take(f, a)
		}
	}
	return x, err
}

// take adds an attribute if it belongs into the archive.
func (x *xattrs) take(f withXattrs, attr string) error {
	if !portable(attr) {
		return nil
	}
	v, ok, err := f.Xattr(attr)
	if err != nil || !ok || len(v) == 0 { // PAX cannot say "present and empty"
		return err
	}
	if x.pax == nil {
		x.pax = map[string]string{}
	}
	x.pax["SCHILY.xattr."+attr] = string(v)
	return nil
}

func sameXattrs(pax map[string]string, below *tree.Dir) (bool, error) {
	x, err := portableXattrs(own{below})
	return err == nil && equalRecords(pax, x.pax), err
}

func equalRecords(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}
