package main

import (
	"log/slog"

	"berth/engine/userns"
)

// usernsOptions are the settings of user namespaces.
type usernsOptions struct {
	Remap    string
	Pool     string
	Fallback string
}

// usernsFlags lists the options that concern user namespaces; the last two are ours.
func usernsFlags(o *usernsOptions) []option {
	return []option{
		{"userns-remap", "", "userns-remap", `User namespace of containers that do not say: "default", USER[:GROUP] or UID[:GID] (one mapping for all), "auto" (ids of its own for each)`, newText(&o.Remap, "")},
		{"userns-pool", "", "userns-pool", "Host ids for --userns=auto, START:SIZE (default those of the users berth or containers in /etc/subuid and /etc/subgid, else high ones that nobody has)", newText(&o.Pool, "")},
		{"userns-fallback", "", "userns-fallback", `What --userns-remap does with privileged containers and those that share the host's namespaces: "refuse", "host" (they get the host's user namespace)`, newText(&o.Fallback, "refuse", "refuse", "host")},
	}
}

// usernsConfig reads the settings and the files that they speak of.
func usernsConfig(o usernsOptions, log *slog.Logger) (userns.Config, error) {
	c, err := userns.Read(userns.Settings{Remap: o.Remap, Pool: o.Pool, HostToo: o.Fallback == "host"})
	if err != nil {
		return c, err
	}
	switch {
	case c.RemapFor != "":
		log.Info("containers have a user namespace with subordinate ids", "user", c.RemapFor, "users", c.Remap.Users, "groups", c.Remap.Groups)
	case o.Remap != "" && c.Default == userns.Host:
		log.Warn("User namespaces: root cannot be remapped with itself; user namespaces are OFF")
	}
	return c, nil
}
