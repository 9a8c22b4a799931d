// Package oracle has no code of its own: its tests build a corpus of Dockerfiles with Berth and with BuildKit and compare what comes
// out. BuildKit is linked into the test as a library, whole: the same version whose language and wire the product uses.
//
// A case is a file Dockerfile.NAME in one of testdata's archives; the other files of an archive are the context of all its cases. The archive's
// comment may have a line for a case, or for "*", with what the client asks for:
//
//	NAME: build-arg:X=1 target=foo platform=linux/arm64
//
// A line that begins with "$ " is run in the context's directory before the first build; one that begins with "$$ " changes the context for a
// second one, of all cases of the archive.
//
// A case "fails" as a whole, and then ends its error with the same words, unless it says "own-words".
//
// What must be the same: whether it succeeds; where in the Dockerfile an error is shown; the image's configuration and history,
// but for times; the files with their types, permissions, owners, link targets, contents and, of files that the build did not write
// itself, times.
//
// Of a second build the steps are compared, too: what BuildKit finds in its cache Berth finds as well, and a context whose
// files were only touched runs nothing.
//
// Bases are made here of one static busybox and handed over as an OCI layout, so no registry is asked.
package oracle
