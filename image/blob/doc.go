// Package blob is the content-addressed store: small documents (configurations, manifests, indexes) and, where a
// setting keeps them, compressed layers, each under its digest.
//
// On disk:
//
//	ROOT/sha256/HEX   a blob; HEX is the digest of its content
//	ROOT/sha512/HEX
//	ROOT/tmp/…        blobs being written; removed by Open
//
// A blob's life: Put (or a Writer) hashes the bytes while it writes them to tmp; only when digest and size are as
// announced is the file fsynced, given its name, and the directory fsynced. When Put returns, the blob survives a
// power cut. Writers of one digest at the same time share: the first writes, the others wait for it, and one of them
// takes over if it fails.
//
// Blobs are counted. Put, Retain and a successful Writer.Commit each give the caller one hold; Release gives it
// back, and the blob whose last hold is gone is deleted. Holds are not on disk: whoever owns the references (the
// image records) retains what they name after Open and then calls Sweep, which deletes the rest. The package knows
// nothing of images.
package blob
