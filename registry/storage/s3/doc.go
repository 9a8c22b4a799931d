// Package s3 is the storage driver on a bucket of an S3-compatible object store. Below the prefix keys are as
// storage has them; beside those there are
//
//	uploads/ID             state of an upload: JSON {multipart, parts, tail, note}
//	uploads-data/ID        what a multipart upload has become, before it has its name
//	uploads-data/ID.tail   the bytes that make no part yet
//
// # The life of an upload
//
// Bytes gather in memory until they make a part; the first part begins a multipart upload, whose id is in the state before anything
// else is sent. Save puts tail and state, so the store has all that the client was told has arrived. Finish sends the tail as the last part,
// completes, copies to the key within the store, and removes the rest; an upload that never had a part is put under its key directly.
//
// An object store gives an object its name when it is complete, so no reader sees half of one. What a process leaves that was
// killed is removed when the next one opens the bucket: objects below uploads-data and multipart uploads that no state names.
//
// One process may serve a bucket and prefix at a time; the store gives no means to enforce it.
package s3
