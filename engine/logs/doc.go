// Package logs reads what containers wrote: the json-file format of Docker, one JSON object a line, in a current file and rotated ones.
//
//	ID-json.log          the current file, the keeper appends to it
//	ID-json.log.1        the one before it
//	ID-json.log.2 …      older and older
//
//	{"log":"text\n","stream":"stdout","attrs":{"k":"v"},"time":"2006-01-02T15:04:05.999999999Z"}
//
// Words. A Reader hands out lines, oldest first. To follow is to wait for more at the end. A rotation renames FILE.n to FILE.n+1 and
// FILE to FILE.1; clearing truncates FILE.
//
// Life of a Reader: Open takes descriptors of all files in one consistent order, skips to the tail, Next walks on from file to file.
// Since it holds descriptors, a rotation meanwhile loses nothing: a file that was rotated is read to its end before the next newer
// one is opened, found by what stands in the directory then. Only what the rotation deletes before it was ever opened is lost.
//
// The package never writes a log and knows nothing of containers.
package logs
