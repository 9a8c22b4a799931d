// Package content is what is in a volume: a directory tree that is copied, measured, written as a tar archive and made of one,
// so that nothing of it is lost: owners, permissions, times to the nanosecond, extended attributes (ACLs and file capabilities
// are some), hard links, holes, devices and fifos. What does not come along: sockets in archives (tar has none), SELinux labels
// (they belong to the place, not to the thing) and change times, which no one can set.
//
// An archive is plain POSIX (PAX) tar that GNU tar and bsdtar unpack; holes are GNU's sparse format 1.0. What is ours sits in
// PAX comments, which other readers skip:
//
//	first header      comment=berth-volume 1
//	an entry          comment=berth-xattrs HEXNAME:HEXVALUE,…   attributes that PAX cannot tell: empty ones, names with =
//	last header       comment=berth-volume 1 end ENTRIES SHA256
//
// SHA256 is of the content: of what a digest sees (see digest.go), not of the archive's bytes. Read refuses an archive of ours
// whose end is missing or whose content differs, so a truncated or damaged copy is noticed before it is used.
//
// Nothing here is durable: the owner of the tree syncs it. Trees may be hostile and in use: names are opened one by one in open
// directories, links are never followed.
package content
