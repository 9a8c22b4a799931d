package mount

// Mount is something to be mounted: the value that volumes, images and engines pass to the runtime.
type Mount struct {
	Source  string   // a path, or a word such as "tmpfs" where the type needs none
	Target  string   // where it appears, absolute
	Type    string   // a file system, "bind", or "" for a bind when the options say so
	Options []string // as in fstab: ro, nosuid, rbind, size=64m …
	Label   string   // SELinux label that all files of a new file system show; "" their own. Read by Make alone
}

// IsBind reports whether the mount shows an existing directory or file elsewhere.
func (m Mount) IsBind() bool {
	if m.Type == "bind" {
		return true
	}
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return false
}

// ReadOnly reports whether the option words make it read-only; the last word counts.
func (m Mount) ReadOnly() bool {
	ro := false
	for _, o := range m.Options {
		switch o {
		case "ro", "rro":
			ro = true
		case "rw", "rrw":
			ro = false
		}
	}
	return ro
}
