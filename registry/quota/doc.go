// Package quota limits how many bytes repositories and organisations hold.
//
// Words. A limit is a number of bytes; zero is no limit. A repository's own limit replaces the one for every repository, and so for
// organisations. An organisation is what stands before the first slash of a name and counts all its repositories. What several
// repositories hold counts in each, although it is stored once: nobody's room depends on what others do.
//
// On disk: FILE, JSON of Limits with "version": 1, replaced as a whole.
//
// A check is made when an upload begins, every 16 MiB of it, and before it is named. Uploads that are named in the same moment are not
// counted with each other, so a limit can be passed by what is in flight, never by more.
//
// The package never removes anything: lowering a limit keeps what is there and refuses what comes.
package quota
