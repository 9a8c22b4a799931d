// Package tarstream reads tar archives from a stream, strictly forward, and keeps account of every byte.
//
// A layer's archive must be unpacked once and be rebuilt bit by bit years later, so the reader tells two
// kinds of bytes apart: payload that lands in a file (and can be read back from there) and everything else
// (headers, padding, the end, junk after it), which a Recorder receives in order. The life of an entry:
//
//	Next      skips what is left of the last entry, reads the header blocks (ustar, GNU, PAX, star, v7)
//	Payload   gives the stored bytes piece by piece, straight from the source's buffers
//	          … or Discard: the rest is recorded as bytes of the archive
//
// It accepts and refuses what Go's archive/tar does (a fuzz test compares them), because that is what Docker's
// images are read with; in addition everything is limited, see Limits. A sparse file (old GNU, PAX 0.0, 0.1, 1.0) yields its stored
// fragments and their places. PAX global headers describe nothing here, as in Docker.
// It never touches the file system.
package tarstream
