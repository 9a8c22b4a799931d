package rootless

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Difference is what is otherwise without root.
type Difference struct {
	What    string
	Verdict string // "works", "limited", "no"
	How     string // in one line
}

// Differences is the one table of what differs between an engine of an ordinary user and root's. docs/rootless.md and `berth system check`
// show this very text.
func Differences() []Difference {
	return []Difference{
		{"containers, images, volumes, exec, logs, cp, commit, build of layers", "works", "as for root; files belong to the user and his subordinate ids"},
		{"bridge networks, container DNS, IPv4 and IPv6", "works", "in a network namespace of the user's: subnets cannot clash with the host's bridges"},
		{"published ports with pasta", "works", "TCP, clients keep their addresses; bound on the host up to a second after the container starts"},
		{"published UDP ports", "limited", "with pasta from November 2023 on"},
		{"published ports with slirp4netns", "no", "it leads out only"},
		{"published ports that a program of the host has", "works", "TCP: refused, as for root; UDP: pasta does not bind what is taken"},
		{"-p 127.0.0.1:PORT", "limited", "pasta binds all addresses; who comes by another one than the loopback is refused"},
		{"ports below net.ipv4.ip_unprivileged_port_start (1024)", "no", "refused by name, with the sysctl that allows them"},
		{"--network host", "limited", "the user's network namespace, not the machine's"},
		{"services of the host itself, registries at localhost", "no", "the namespace has the host's addresses and a loopback of its own; other machines are reached"},
		{"macvlan, ipvlan", "limited", "on links of the user's namespace only: the machine's are not there"},
		{"memory, CPU, pids, IO limits", "limited", "those whose cgroup v2 controllers are delegated to the user; others are refused by name"},
		{"limits on cgroup v1", "no", "v1 delegates nothing; the unified hierarchy beside it holds containers without limits"},
		{"--device", "limited", "nodes that the user himself may open; device rules of a cgroup are root's"},
		{"--privileged", "limited", "all rights in the user's namespace, none on the machine"},
		{"--pid host, --ipc host, --uts host", "limited", "the machine's, seen and used with the user's rights"},
		{"--userns auto, --userns-remap, id-mapped mounts", "no", "the user's ids are one mapping; mapping again takes root"},
		{"AppArmor profiles, SELinux labels", "no", "loading and assigning them is root's; seccomp and capabilities work"},
		{"users and groups above the subordinate ids", "no", "refused by name; /etc/subuid and /etc/subgid say how many there are"},
		{"--ulimit above the user's own, --oom-score-adj below", "no", "refused by name"},
		{"volumes of nfs, cifs and block devices", "no", "mounting them is root's; binds, tmpfs and overlay work"},
		{"--storage-opt size", "no", "project quotas are root's"},
		{"checkpoint and restore", "no", "CRIU needs rights on the machine"},
		{"lazy pulling over FUSE", "limited", "where the user may open /dev/fuse"},
		{"plugins that the engine runs", "limited", "as containers of the user: those that need the machine's rights fail"},
		{"start at boot", "limited", "with lingering: loginctl enable-linger"},
	}
}

// WriteDifferences prints the table.
func WriteDifferences(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "WITHOUT ROOT\t\tHOW")
	for _, d := range Differences() {
		fmt.Fprintf(t, "%s\t%s\t%s\n", d.What, d.Verdict, d.How)
	}
	return t.Flush()
}
