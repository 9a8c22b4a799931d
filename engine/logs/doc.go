// Package logs knows containers' log options, and reads and compresses what the keeper wrote: Docker's json-file format, one JSON object a
// line, or its local format (runtime/keeper/localfile), in a current file and rotated ones.
//
//	PATH                 the current file, the keeper appends to it
//	PATH.1, PATH.2 …     those before it, older and older
//	PATH.N.gz            the same, compressed; where both are there, the plain one counts
//	PATH.packing         a compressed copy that is being made
//
//	{"log":"text\n","stream":"stdout","attrs":{"k":"v"},"time":"2006-01-02T15:04:05.999999999Z"}
//
// Words. A Config is what log options come to. A Reader hands out lines, oldest first. To follow is to wait for more at the end. A
// rotation renames PATH.n to PATH.n+1 and PATH to PATH.1; compression replaces PATH.n; clearing removes all and begins anew. A Pos is a
// place in a log that lasts: packages below (ship) carry a log to a collector and go on at such a place.
//
// Life of a Reader: Open takes descriptors of all files in one consistent order, skips to the tail, Next walks on from file to file.
// Since it holds descriptors, a rotation meanwhile loses nothing: a file that was rotated is read to its end before the next newer
// one is opened, found by what stands in the directory then, also where the file has become its compressed copy, which names its inode.
// Only what the rotation deletes before it was ever opened is lost.
//
// Collectors are package sink and those below it. The package renames nothing, writes no log, and knows nothing of containers.
package logs
