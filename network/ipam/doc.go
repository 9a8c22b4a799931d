// Package ipam finds subnets for networks and addresses for containers. It is pure: it looks at nothing and keeps
// nothing on disk; who uses it says what is taken.
//
// Words. A PoolSpec is a block of addresses that networks without a subnet of their own get theirs from, and the size of
// each. A Pool is the addresses of one subnet: which are taken, and the lowest that is free.
//
// A Pool's life: made when a network is made or read again, with its gateway and the addresses of others taken; the
// addresses of running containers are taken as their sandboxes are recovered; Take and Next as containers start, Give as
// they end. Nothing of it is written: a container's address is in its sandbox's file, which is of this boot, and a static
// one in its spec.
package ipam
