// Package lazy lets containers start on layers that are still on their way.
//
// A compressed layer of eStargz or zstd:chunked carries a table of contents (TOC): all names and attributes, and for
// each stretch of each file where it lies in the compressed blob and its digest. With that and a registry that gives out
// ranges, the layer can be shown at once as a file system whose content is fetched as it is read.
//
// Words. The TOC is what the manifest's annotation vouches for (its digest); a layer without that annotation is not
// served lazily, because its bytes could not be verified before they are served. A chunk is a stretch of one file with a
// digest. The cache is the blob as far as it is here, a sparse file. A view is one FUSE mount that shows the layer. A
// layer is whole when its blob was fetched to the last byte and unpacked as any other layer is.
//
// The life of a lazy layer:
//
//	Look       reads the TOC (one or two small ranges), verifies it and builds the tree; Commit mounts a view and puts the layer into
//	           the layer store, where it looks like any other: its directory can be an overlay's lower directory
//	serve      a read of a file: the chunks it touches are fetched with priority, verified, decompressed and served
//	fill       in the background the rest of the blob is fetched, first to last; it stands back while somebody waits for a chunk
//	whole      the blob is unpacked by layer.Store.Stage like any pulled layer, which verifies its digest and its diff id, and
//	           takes the lazy layer's place: same directory, same diff id. Containers that are made or started from now on
//	           use the unpacked files; those that run keep the view, which is then served from the unpacked files
//	last user  when no mount uses a view any more the kernel says so, and the view is forgotten; with the last one, what this
//	           package keeps of the layer
//
// On disk (ROOT is the image store's directory "lazy"; docs/formats-image.md has the files):
//
//	ROOT/SHORT/lazy.json    which layer, of which blob, from where; how files were numbered
//	ROOT/SHORT/toc          the TOC, verified again whenever it is read
//	ROOT/SHORT/blob         the cache; absent when the layer is whole
//	ROOT/SHORT/ranges       which ranges of the blob are in the cache
//
// Nothing in the cache is trusted: a chunk's digest is checked each time it is decompressed, and one that does not match is
// fetched once more before the read fails with EIO. So cache and ranges need no fsync.
//
// When the engine dies, views live on: the descriptor of /dev/fuse is parked in the keeper. What is in the kernel's caches
// goes on being readable; whoever reads something else waits. The next engine takes the descriptor, asks the kernel to send
// again what the dead one had not answered (FUSE_NOTIFY_RESEND, Linux 6.9; without it a request that the dead engine had
// read would be lost and its reader would hang for ever, so without it Why gives a reason and layers are pulled whole)
// and goes on. It answers for the same node numbers, as they follow from the TOC. After a reboot there are no views; Open
// mounts new ones and goes on filling the cache.
//
// Bounds. A read that needs the registry fails with EIO when nothing could be fetched for Config.ReadTimeout (a minute);
// the log names the layer, the file and the bound. The next read tries again. A process that is killed while it waits is let go
// within half a second. Decompressed chunks are kept in memory up to 16 MiB for all layers together. TOCs of more than 64 MiB
// or 250,000 entries, and chunks of more than 16 MiB, are not served lazily. Four chunks
// are decompressed at a time.
//
// A process must not wait for a file system that it serves itself: killed at that moment it could not end, as the kernel
// waits for the answer, nor let go of its locks, which the next engine needs in order to answer. The engine does look into views
// (docker cp, /etc/passwd of an image), so the next engine calls Rescue when the store is still locked: it answers the
// requests of processes that are being killed, and only those.
//
// What differs from an ordinary layer while it is not whole: its tar (save, push without a source) is waited for; a device
// number, a path through a link or any other construction that the tree is not built for makes Add refuse, and the layer is pulled
// as usual. The package never names an image, never decides which images are lazy, and keeps no credentials: after a restart
// a private layer goes on when a pull brings them (Supply).
package lazy
