// Package fuse serves read-only file systems to the kernel over /dev/fuse, so that the server can die and another one can
// go on where it stopped.
//
// Words. A file system (FS) is what the caller shows. A node is a file of it, by number; the root is 1. A
// connection is one open description of /dev/fuse, which belongs to one mount; whoever has a descriptor of it can serve.
//
// The life of a connection: Mount opens /dev/fuse, makes the file system and answers the kernel's first message (INIT),
// in which both sides say what they can; the mount is then attached and the descriptor may be handed to anybody. Serve
// answers requests. Stop ends serving and leaves what was not answered to the next server, which calls Resend first: the
// kernel then sends again what the server before had read (FUSE_NOTIFY_RESEND, Linux 6.9). When the last user of the
// mount is gone the kernel ends the connection, and Done is closed. When the last descriptor is closed first, all of the
// mount fails with ENOTCONN.
//
// That a server can be replaced rests on this: it keeps no state. Node numbers are the FS's and mean the same for ever; there
// are no file handles (OPEN and OPENDIR are refused once with ENOSYS, after which the kernel opens by itself), directories
// are listed by position, and lookups are not counted, so FORGET means nothing. Attributes and names may be kept by the kernel
// for as long as it likes, content too: nothing here ever changes.
//
// How requests travel: one goroutine per connection reads; what the FS knows at once it answers itself; reads of content
// get a goroutine each. FUSE_DEV_IOC_CLONE is not used: requests that were read through a cloned descriptor fail when it
// is closed, so they would not survive their server.
//
// Waiting. A thread that waits for an answer cannot be killed once its request was read, unless the server answers
// (fs/fuse/dev.c, request_wait_answer). On a signal the kernel sends INTERRUPT; a read by a thread that has SIGKILL
// pending is then given up with EINTR. Other signals do not end a read: a page fault cannot be interrupted, and
// programs do not expect EINTR from read(2) on a file.
//
// The package never writes to a file system, knows no layers, and never decides how long a read may wait: its FS does.
package fuse
