// Package driver is what serves volumes, as the volume room sees it: the interface that the local driver, Docker's volume
// plugins and CSI drivers implement.
//
// Words. A volume is known to a driver by its name alone. A user is whoever has it mounted, a container's id as a rule; a driver
// mounts a volume with its first user and may unmount it after its last.
//
// Life of a volume in a driver: Check (are the options good?), Create, any number of Mount and Unmount, Remove. Every call may
// be repeated, since the engine can die between any two of them: creating what is there, unmounting what is not mounted and
// removing what is gone are no errors. Calls for one volume never overlap; calls for different volumes do.
//
// A driver's waits are bounded: whatever a server or a plugin does, a call ends, and its error names who did not answer.
package driver
