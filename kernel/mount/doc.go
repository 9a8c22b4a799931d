// Package mount is Linux mounts as values and as calls: what is mounted (mountinfo), what option words
// mean, and the mount calls by descriptor (fsopen, open_tree, move_mount, mount_setattr, openat2).
//
// Words. A Mount is a wish, as OCI and fstab write it: source, target, type, option words; it is the one
// value that rooms pass to each other. Options is what its words mean to the kernel. Info is one line of
// mountinfo: something that is mounted.
//
// A Mount's life: made by whoever wants it, its words read once with ParseOptions, turned into calls by
// whoever assembles the root. This package never decides what to mount, resolves no path inside a
// container except with OpenInRoot, and keeps no table of its own: the kernel's is the truth.
package mount
