// Package bundle turns what a container is asked to be into an OCI runtime specification: the part of a start that is pure decision.
//
// Words. Rules are what all containers of an engine have in common. An Input is one container with the facts that were found out for
// it: whose user it runs as, whose namespaces it joins, where its files are. Limits are the numbers that go to its cgroup.
//
// Life of the main value: the engine makes Rules once; each start gathers an Input, Build gives the specification, the launch room
// compiles it into system calls. The same record and facts always give the same specification.
//
// The only look at the machine is at device nodes, through Input.Device, since a specification names devices by number.
package bundle
