package rootless

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"berth/kernel/cgroup"
	"berth/kernel/idmap"
)

// Need is what a user's engine takes from the machine.
type Need struct {
	What     string
	Met      bool
	Found    string // or what is missing
	Mend     string // a command; "" where it is met
	Optional bool   // containers run without it
}

// Needs looks at this machine as the user who asks.
func Needs(ctx context.Context) []Need {
	name := "USER"
	if me, err := user.Current(); err == nil {
		name = me.Username
	}
	return []Need{
		needNamespace(), needHelper("newuidmap"), needHelper("newgidmap"), needIDs("/etc/subuid", "--add-subuids", name), needIDs("/etc/subgid", "--add-subgids", name),
		needProgram("nsenter", "util-linux"), needCgroup(), needControllers(), needWayOut(ctx), needTun(), needPorts(), needLinger(name),
	}
}

// needNamespace makes one: nothing else tells for sure.
func needNamespace() Need {
	n := Need{What: "user namespaces", Met: true, Found: "allowed"}
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	if err := cmd.Run(); err != nil {
		n.Met, n.Found = false, err.Error()
		n.Mend = "sysctl user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0 (those that exist)"
	}
	return n
}

// needHelper looks for a program that may write id maps: setuid root, or with a capability in its file.
func needHelper(name string) Need {
	n := needProgram(name, "uidmap")
	if !n.Met {
		return n
	}
	info, err := os.Stat(n.Found)
	if err != nil || info.Mode()&os.ModeSetuid != 0 {
		return n
	}
	if size, err := unix.Getxattr(n.Found, "security.capability", nil); err == nil && size > 0 {
		return n
	}
	return Need{What: n.What, Found: n.Found + " is not setuid", Mend: "chmod u+s " + n.Found}
}

func needProgram(name, pkg string) Need {
	path, err := exec.LookPath(name)
	if err != nil {
		return Need{What: name, Found: "not installed", Mend: "apt-get install " + pkg}
	}
	return Need{What: name, Met: true, Found: path}
}

// enoughIDs is what images commonly use.
const enoughIDs = 65536

func needIDs(file, option, name string) Need {
	n := Need{What: file}
	blocks, err := idmap.Subordinate(file, name, os.Getuid())
	total := uint64(0)
	for _, r := range idmap.Lines(blocks) {
		total += uint64(r.Size)
	}
	n.Found = fmt.Sprintf("%d ids for %s", total, name)
	if err != nil && total == 0 {
		n.Found = "none for " + name
	}
	n.Met = total > 0
	if total < enoughIDs {
		n.Optional = n.Met
		n.Met = false
		n.Mend = fmt.Sprintf("usermod %s 100000-165535 %s (a range that nobody else has)", option, name)
	}
	return n
}

func userSystemd() bool {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	_, err := os.Stat(filepath.Join(dir, "systemd/private"))
	return dir != "" && err == nil
}

// ownCgroup gives the directory of this process in the unified hierarchy; "" where there is none.
func ownCgroup() string {
	layout, err := cgroup.Detect()
	if err != nil || layout.V2() == nil {
		return ""
	}
	return filepath.Join(layout.V2().Dir, layout.V2().Own)
}

func needCgroup() Need {
	n := Need{What: "a cgroup of the user's"}
	dir := ownCgroup()
	switch {
	case dir == "":
		n.Found, n.Mend = "cgroup v2 is not mounted", "mount -t cgroup2 none /sys/fs/cgroup/unified (or boot with systemd.unified_cgroup_hierarchy=1)"
	case userSystemd():
		n.Met, n.Found = true, "from the user's systemd"
	case unix.Access(dir, unix.W_OK) == nil && unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) == nil:
		n.Met, n.Found = true, dir
	default:
		n.Found = dir + " belongs to somebody else"
		n.Mend = fmt.Sprintf("log in through systemd (pam_systemd), or: mkdir %[1]s/%[2]d && chown -R %[2]d %[1]s/%[2]d && echo PID-OF-THE-SHELL > %[1]s/%[2]d/cgroup.procs", strings.TrimSuffix(dir, "/"), os.Getuid())
	}
	return n
}

// needControllers says which limits can be had.
func needControllers() Need {
	n := Need{What: "cgroup controllers", Optional: true}
	dir := ownCgroup()
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	have := strings.Fields(string(text))
	if dir == "" || err != nil {
		n.Found = "none"
	} else {
		n.Found = strings.Join(have, " ")
	}
	var lacks []string
	for _, want := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		if !strings.Contains(" "+n.Found+" ", " "+want+" ") {
			lacks = append(lacks, want)
		}
	}
	n.Met = len(lacks) == 0
	if !n.Met {
		n.Found = strings.TrimSpace(n.Found + " (no " + strings.Join(lacks, ", ") + ")")
		n.Mend = "systemctl edit user@.service: [Service] Delegate=cpu cpuset io memory pids; on cgroup v1 there is no way but v2"
	}
	return n
}

func needWayOut(ctx context.Context) Need {
	out := findWayOut(ctx)
	n := Need{What: "packets in and out", Optional: true, Found: out.name}
	switch {
	case out.name == "":
		n.Found, n.Mend = "nothing: containers reach nobody outside", "apt-get install passt"
	case out.name != "pasta":
		n.Found, n.Mend = out.name+": out only, ports cannot be reached", "apt-get install passt"
	case out.date < scansWell:
		n.Found, n.Mend = "pasta of an old release: no UDP ports", "install passt from November 2023 or later"
	default:
		n.Met = true
	}
	return n
}

func needTun() Need {
	n := Need{What: "/dev/net/tun", Met: true, Optional: true, Found: "can be opened"}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		n.Met, n.Found, n.Mend = false, err.Error(), "modprobe tun && chmod 666 /dev/net/tun"
		return n
	}
	f.Close()
	return n
}

func needPorts() Need {
	low := lowestPort()
	n := Need{What: "published ports", Optional: true, Met: low <= 80, Found: fmt.Sprintf("from %d on", low)}
	if !n.Met {
		n.Mend = "sysctl net.ipv4.ip_unprivileged_port_start=80"
	}
	return n
}

func needLinger(name string) Need {
	n := Need{What: "lingering", Optional: true, Met: true, Found: "no systemd: processes outlive a logout"}
	if !userSystemd() {
		return n
	}
	if _, err := os.Stat(filepath.Join("/var/lib/systemd/linger", name)); err != nil {
		n.Met, n.Found, n.Mend = false, "containers end when "+name+" logs out", "loginctl enable-linger "+name
		return n
	}
	n.Found = "on"
	return n
}

// WriteNeeds prints what there is, and the commands for root that mend what there is not. It reports whether an engine can run.
func WriteNeeds(w io.Writer, needs []Need) (can bool, err error) {
	can = true
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "WITHOUT ROOT, HERE\t\t")
	for _, n := range needs {
		verdict := "yes"
		switch {
		case !n.Met && n.Optional:
			verdict = "less"
		case !n.Met:
			verdict, can = "NO", false
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", n.What, verdict, n.Found)
	}
	if err := t.Flush(); err != nil {
		return can, err
	}
	for _, n := range needs {
		if n.Mend != "" {
			fmt.Fprintf(w, "  # %s: %s\n", n.What, n.Mend)
		}
	}
	return can, nil
}
