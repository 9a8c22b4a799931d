// Package userdirs says where an ordinary user's engine keeps things, by the XDG Base Directory Specification. The engine and its clients
// ask here, so that they find each other. It looks at the environment and touches nothing.
package userdirs

import "path/filepath"

// Dirs are directories of Berth's, all absolute where HOME or the variables are.
type Dirs struct {
	Run    string // sockets, and what need not outlive a logout; where no XDG_RUNTIME_DIR is set, below the home directory
	Data   string // images, containers, volumes
	Config string // daemon.json
}

// Of gives the directories in an environment. A variable that is not absolute counts as unset, as the specification wants it.
func Of(getenv func(string) string) Dirs {
	home := getenv("HOME")
	dir := func(variable string, otherwise ...string) string {
		d := getenv(variable)
		if !filepath.IsAbs(d) {
			d = filepath.Join(append([]string{home}, otherwise...)...)
		}
		return filepath.Join(d, "berth")
	}
	return Dirs{Run: dir("XDG_RUNTIME_DIR", ".berth-run"), Data: dir("XDG_DATA_HOME", ".local", "share"), Config: dir("XDG_CONFIG_HOME", ".config")}
}

// Socket is where the engine listens unless told otherwise.
func (d Dirs) Socket() string { return filepath.Join(d.Run, "berth.sock") }
