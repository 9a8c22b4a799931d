// Package remotecache carries the outcomes of build steps from one builder to another: in a directory of the client, in an
// image, at a registry, in a bucket.
//
// Words. A record says under which keys a step's outcome is known and which layers it consists of. A table is the document with
// all records and layers of one export; blobs are the layers, compressed. A place holds tables and blobs: the client's directory
// (local), a registry, an S3 bucket; an inline cache is a table in an image's own configuration, and its blobs are the image's.
// Cache mounts are directories that RUN --mount=type=cache left; they travel as blobs beside the layers, where the exporter asks for it.
//
// The life of an export: Target reads the attributes before the build; Export walks what was built, uploads blobs that are not there, then the
// table, then the name. The life of an import: Import fetches the table; Lookup answers from it in memory, and asks the place whether the blobs
// of a hit are still there; its layers are promised, and fetched when somebody needs the files.
//
// The table lies in BuildKit's containers (an index or an image manifest whose configuration is an
// application/vnd.buildkit.cacheconfig.v0), so registries and their cleaners treat it alike; its keys are Berth's own, so that neither
// builder finds hits in what the other wrote.
//
// Trust: who can write the place decides what steps give. A blob is verified against its digest and its diff id before anything sees it;
// that a key stands for it is the word of whoever exported. So tables are asked only by the build that names them. Cache mounts are
// separated by scope: an export names the scope it writes, an import the scopes that it reads, and nothing is taken from others.
//
// The package never decides what a key is, and never evicts anything.
package remotecache
