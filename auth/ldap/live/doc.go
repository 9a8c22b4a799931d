// Package live starts real directories for tests: OpenLDAP's slapd and Samba's domain controller, each in a directory of its own
// on loopback, with users and groups, and ends them with the test. Where the programs are missing it skips the test and names the
// Debian package. It is for tests only.
//
// People of Slapd: Alice (in dev, which is in engineers, which is in staff, which is in dev again), bob (in staff, operators
// and the POSIX group unix), carol (in admins, which is elsewhere), and some whose names are hard to escape; passwords
// are NAME-secret. Of Samba: Alice (Al1ce!secret, in dev as above), bob (B0b!secret), gone (disabled); everybody is in everybody.
package live
