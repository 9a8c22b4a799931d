package probe

// Facility is one thing a kernel may or may not have.
type Facility int

// The facilities. Their names, versions and uses stand in the table below.
const (
	Openat2 Facility = iota
	Clone3
	CloneIntoCgroup
	ClearSighand
	PidfdOpen
	PidfdGetfd
	PidfdSetns
	PidfdInfo
	PidfdExit
	MountFD
	MountSetattr
	IDMapMount
	NoSymFollow
	Overlay
	OverlayIDMap
	OverlayAppend
	OverlayFD
	MoveDetached
	FuseResend
	Statmount
	CloseRange
	CloseRangeExec
	CloseRangeUnshare // older kernels' copies can take free numbers for taken (CVE-2024-45025)
	CgroupKill
	CgroupNamespace
	TimeNamespace
	UserNamespace
	SeccompNotify
	SeccompWaitKillable
	Landlock
	AppArmor
	SELinux
	PressureStall
	CoreSched
	Fchmodat2
	CapSysAdmin
	CapSysResource
	CapBPF
	facilityCount

	none Facility = -1
)

// facility is a row of the table. The running kernel is asked by ask, or by its version where ask is nil.
type facility struct {
	name  string
	since Version // mainline release that first had it; zero when only configuration or privilege decides
	needs Facility
	use   string // what Berth does with it, and what happens without
	ask   func() string
}

// table is static data: it costs nothing at start.
var table = [facilityCount]facility{
	Openat2:             {"openat2", Version{5, 6}, none, "paths inside a root; else each component is walked by fd", askOpenat2},
	Clone3:              {"clone3", Version{5, 3}, none, "all launches; required", askClone3},
	CloneIntoCgroup:     {"clone-into-cgroup", Version{5, 7}, Clone3, "birth inside a v2 cgroup; else written to cgroup.procs", askCloneIntoCgroup},
	ClearSighand:        {"clear-sighand", Version{5, 5}, Clone3, "clean signal handlers at birth; required", nil},
	PidfdOpen:           {"pidfd-open", Version{5, 3}, none, "signals and waits that cannot hit a reused pid; required", askPidfdOpen},
	PidfdGetfd:          {"pidfd-getfd", Version{5, 6}, none, "seccomp listeners; required for them", askPidfdGetfd},
	PidfdSetns:          {"pidfd-setns", Version{5, 8}, PidfdOpen, "exec joins all namespaces in one call; else one by one", nil},
	PidfdInfo:           {"pidfd-info", Version{6, 13}, PidfdOpen, "facts of a process by pidfd; else /proc", askPidfdInfo},
	PidfdExit:           {"pidfd-exit", Version{6, 15}, PidfdInfo, "exit status of a process that is not our child; else unknown", nil},
	MountFD:             {"mount-fd", Version{5, 2}, none, "fsopen, open_tree, move_mount: mounts assembled by fd; required", askMountFD},
	MountSetattr:        {"mount-setattr", Version{5, 12}, none, "recursive mount attributes; else remount of each mount", askMountSetattr},
	IDMapMount:          {"idmap-mount", Version{5, 12}, MountSetattr, "id-mapped mounts; else refused when asked for", nil},
	NoSymFollow:         {"nosymfollow", Version{5, 14}, MountSetattr, "the nosymfollow mount attribute; else refused", nil},
	Overlay:             {"overlay", Version{3, 18}, none, "container roots; else refused", askOverlay},
	OverlayIDMap:        {"overlay-idmap", Version{5, 19}, IDMapMount, "layers shown through a container's id mapping; else user namespaces are refused", nil},
	OverlayAppend:       {"overlay-lowerdir+", Version{6, 5}, Overlay, "layers added one by one; else one lowerdir= string", nil},
	OverlayFD:           {"overlay-fd", Version{6, 13}, OverlayAppend, "layers given as fds; else by path", nil},
	MoveDetached:        {"move-detached", Version{6, 15}, MountFD, "trees assembled before launch; else by the child", nil},
	FuseResend:          {"fuse-resend", fuseResendSince, MountFD, "layers that are served while they are fetched; else they are pulled whole", askFuse},
	Statmount:           {"statmount", Version{6, 8}, none, "facts of one mount; else all of mountinfo", askStatmount},
	CloseRange:          {"close-range", Version{5, 9}, none, "closing inherited fds; required", askCloseRange},
	CloseRangeExec:      {"close-range-cloexec", Version{5, 11}, CloseRange, "marking fds close-on-exec at once; else closed early", askCloseRangeExec},
	CloseRangeUnshare:   {"close-range-unshare", Version{6, 11}, CloseRange, "a part of the fds for a child; else a copy of all", nil},
	CgroupKill:          {"cgroup-kill", Version{5, 14}, none, "killing a cgroup in one write; else freeze and SIGKILL each", nil},
	CgroupNamespace:     {"cgroup-namespace", Version{4, 6}, none, "private cgroup view; else refused when asked for", askCgroupNamespace},
	TimeNamespace:       {"time-namespace", Version{5, 6}, none, "time namespaces; else refused when asked for", askTimeNamespace},
	UserNamespace:       {"user-namespace", Version{3, 8}, none, "user namespaces; else refused when asked for", askUserNamespace},
	SeccompNotify:       {"seccomp-notify", Version{5, 0}, none, "seccomp listeners; else refused when asked for", askSeccompNotify},
	SeccompWaitKillable: {"seccomp-wait-killable", Version{5, 19}, SeccompNotify, "the flag WAIT_KILLABLE_RECV; else left out", nil},
	Landlock:            {"landlock", Version{5, 13}, none, "confining helper processes; else not confined", askLandlock},
	AppArmor:            {"apparmor", Version{}, none, "profiles; else refused when asked for", askAppArmor},
	SELinux:             {"selinux", Version{}, none, "labels; else refused when asked for", askSELinux},
	PressureStall:       {"pressure", Version{4, 20}, none, "pressure figures in stats; else absent", askPressure},
	CoreSched:           {"core-sched", Version{5, 14}, none, "core scheduling cookies; else refused when asked for", askCoreSched},
	Fchmodat2:           {"fchmodat2", Version{6, 6}, none, "chmod without following links; else through /proc/self/fd", askFchmodat2},
	CapSysAdmin:         {"cap-sys-admin", Version{}, none, "mounts and namespaces; else rootless ways", func() string { return askCapability(21) }},
	CapSysResource:      {"cap-sys-resource", Version{}, none, "raising hard limits, lowering oom_score_adj; else refused when asked for", func() string { return askCapability(24) }},
	CapBPF:              {"cap-bpf", Version{5, 8}, none, "device rules on cgroup v2; else SYS_ADMIN", func() string { return askCapability(39) }},
}

// String gives the name that BERTH_KERNEL_DISABLE and `info --kernel` use.
func (f Facility) String() string {
	if f < 0 || f >= facilityCount {
		return "unknown facility"
	}
	return table[f].name
}

// Since is the mainline release that first had the facility; zero when only configuration or privilege
// decides.
func (f Facility) Since() Version {
	if f < 0 || f >= facilityCount {
		return Version{}
	}
	return table[f].since
}

// Facilities lists all of them, in the table's order.
func Facilities() []Facility {
	fs := make([]Facility, facilityCount)
	for i := range fs {
		fs[i] = Facility(i)
	}
	return fs
}
