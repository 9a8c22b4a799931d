// Package storage keeps the registry's content: blobs once for all repositories, and for each repository the
// blobs and manifests that it holds, its tags, its index of referrers and its unfinished uploads. It lies on a Driver,
// which is a directory (storage/dir) or a bucket of an S3-compatible object store (storage/s3).
//
// # Words
//
// A blob is a sequence of bytes named by its digest; a manifest is a blob too. A link says that a repository holds a
// blob: without it the blob cannot be seen there, whoever has it elsewhere. A record is the link of a manifest, with what the
// manifest names. A tag is a name for a record. A lease keeps a blob from collection for a while without any link.
//
// # Keys
//
//	version                                      "1"
//	blobs/ALG/HH/HEX                             the bytes; HH are the first two digits of HEX
//	names/team:web                               the repository team/web exists; empty
//	repositories/team/web/_blobs/ALG/HEX         link: JSON {size, at}
//	repositories/team/web/_manifests/ALG/HEX     record: JSON {mediaType, size, at, subject, artifactType, references}
//	repositories/team/web/_tags/NAME             JSON {digest, at}
//	repositories/team/web/_referrers/ALG/HEX/ALG-HEX   the descriptor that the referrers API shows: subject, then referrer
//	uploads/ID                                   the driver's: bytes of an upload that have arrived, and its state
//
// # The life of a manifest
//
// Its blobs arrive first: an Upload is started, appended to, and committed under its digest, which is computed from the bytes
// that are being written; a name is given only to bytes that have it. PutManifest then holds a lease on all that the manifest
// names, looks whether the repository has it, and writes in this order: the manifest's blob, the entry with its subject's
// referrers, the record, the tag. Each is durable before the next, so whoever sees a name finds all that it stands for. Deleting goes
// the other way: tags, record, referrers entry; the bytes are taken by the collector (registry/gc) when nothing names them.
//
// # Whom the collector spares
//
// Collection.SweepBlob and its like refuse when the blob is leased or younger than the mark: uploads, mounts, HEAD answers and manifests
// being put lease what they name, and what was leased since the collection began stays leased until it ends. A refusal and a removal exclude each other by the digest's own lock,
// so a push never has to wait for a collection and the registry is never read-only.
//
// One process serves one storage. A second one is refused where the driver can tell (dir: a lock on the root).
// The package never speaks HTTP, never decides who may do what, and never removes what somebody can still name.
package storage
