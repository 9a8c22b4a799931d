// Package quota limits the bytes of directory trees by project quotas, as ext4 and xfs have them.
//
// Words. A project is a number that a directory carries and that everything made in it inherits (FS_XFLAG_PROJINHERIT); the file
// system counts the blocks of each project and refuses more than the limit with EDQUOT. The file system must have been made for
// it and be mounted with prjquota: `tune2fs -O project -Q prjquota`, `mount -o prjquota`.
//
// A Control is an open file system that counts projects. Numbers are given out by the caller; Free finds one that nobody uses.
// On ext4 a process with CAP_SYS_RESOURCE is not stopped by limits: containers do not have it unless they are privileged.
//
// The package never turns quotas on or off, and changes no project but those it is told to.
package quota
