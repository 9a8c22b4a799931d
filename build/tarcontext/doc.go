// Package tarcontext serves a build context that came as one tar: the body of Docker's classic POST /build.
//
// The tar is spooled to an unnamed file and indexed; it is never unpacked, so that no name in it can mean anything outside of it. The
// index is a tree of names, in which a later entry replaces an earlier one, as tar does it. FS shows it to the code that sends contexts
// (fsutil), which then treats it like a directory of a client: ignore rules, the Dockerfile and COPY all see the same files as with any
// other builder.
//
// Life of a Context: Read takes the stream to its end, FS may be walked by any number of builds, Close gives the room on the disk back,
// also when the process dies before it: the file has no name.
//
// The package decides nothing about Dockerfiles.
package tarcontext
