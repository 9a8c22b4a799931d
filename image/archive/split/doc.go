// Package split keeps what a layer's tar archive was besides the content of its files, so that the archive can
// be rebuilt bit by bit from the unpacked files: its digest is the layer's name and must come out the same.
//
// The format is tar-split's (github.com/vbatts/tar-split/tar/storage): JSON objects, one a line, here in one zstd
// frame instead of gzip:
//
//	{"type":2,"payload":"BASE64","position":0}            bytes of the archive: headers, padding, end
//	{"type":1,"name":"etc/passwd","size":1024,"payload":null,"position":1}   the next bytes are that file's
//
// with two differences. A file has no checksum: whoever rebuilds an archive compares its digest. And a file may
// come in several stretches, as sparse files are stored: "offset" says where in the file one begins.
// Names are those under which the file lies on disk, which are not the archive's where a link stands between.
//
// Life: a Writer receives bytes (as tarstream.Recorder) and files while the layer is unpacked, Close ends it;
// Rebuild writes the archive. The package never verifies what it rebuilds.
package split
