// Package apparmor confines containers with AppArmor: it tells whether the kernel has it, writes the
// default profile of containers and loads it with apparmor_parser, and knows what a process writes to
// enter a profile at its next execve(2).
//
// The default profile is called docker-default and means what Docker's of that name means, so that
// images, tools and other engines on the machine find what they expect. A profile of that name which is
// loaded already, by whomever, is left alone.
//
// The package never confines the process it runs in and keeps no state.
package apparmor
