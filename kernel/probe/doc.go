// Package probe says what the running kernel can do. It owns the list of every kernel facility that
// Berth uses and that is newer than the floor (Linux 5.10) or that a configuration, a sandbox or a
// missing privilege can take away.
//
// Words: a facility is one such thing (a system call, a flag, a file); it is present or missing, and
// when missing there is a reason. The main value is Features: a small copyable handle. Its life is one
// look per facility: nothing is asked before the first Has, and the answer is kept for the process.
// Facilities that a configuration can remove are found by a harmless call; pure extensions of a call
// that is there anyway are read off the kernel's version, since asking would cost a mount.
//
// Every facility has a fallback somewhere in kernel/ or runtime/launch; to test the fallbacks on a new
// kernel, BERTH_KERNEL_DISABLE=openat2,mount-setattr (or Features.Without) makes facilities look
// missing. The package never enables, loads or changes anything in the kernel.
package probe
