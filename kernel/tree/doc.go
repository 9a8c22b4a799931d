// Package tree works on a directory tree that may be hostile: a layer being unpacked, a container's root.
//
// A Dir is an open directory. Most methods take one name in it (no slash) and never follow a symbolic link at
// that name. Only Dir.Open takes a path, and resolves it with openat2(2) as if the directory were the file
// system's root: `..`, absolute and relative links, and links changed while we look cannot lead out of it
// (RESOLVE_IN_ROOT, Linux 5.6). Descriptors stay what they were when names are moved, so a checked Dir stays
// checked.
//
// A File is a regular file being written or read by plain system calls, without the runtime's poller, because
// layers consist of many small files.
//
// Errors are *fs.PathError with the system's errno: errors.Is(err, fs.ErrNotExist) and
// errors.Is(err, unix.ELOOP) work. The package never decides what a name means: whiteouts, layers and tar
// are its callers' words.
package tree
