// Package sock makes sockets that only hold a port, and tells who has one.
package sock
