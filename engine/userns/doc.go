// Package userns decides in which user namespace a container lives and which of the host's ids it has there. It
// makes no namespace and reads no container.
//
// Words. A Mode is what --userns says. A Config is what the daemon says: the mapping of all containers that say
// nothing (--userns-remap), and the pool of host ids from which --userns=auto takes. A Grant is what one container
// holds of the pool.
//
// A range's life: Take at a container's creation → the container's Record, which is what makes it durable → Keep when
// a new engine reads that → Release once the container is gone from the disk. A crash between Take and the Record
// loses nothing: whoever had the range does not exist. Two containers never hold one id, unless they share a
// namespace; a range that was given back is the last to be given out again.
//
// Files are stored with the ids that they have inside, so a range leaves nothing behind.
package userns
