// Package network is networks, endpoints, names and ports: it joins a container's network namespace to the networks it
// asks for, and leads to it what the world sends to its published ports.
//
// Words. A Network is fixed when it is made. A Want is what a container asks of networks; its Sandbox is the namespace it
// gets, with an Endpoint, a link with addresses, on each of them, and the Ports that are published. The gateway endpoint
// is the one with the default route; published ports lead to it.
//
// The life of a network: Create (its file is durable before the answer) → made again by each Open, what is missing of it
// → Remove. The life of a sandbox: Join takes a namespace from the pool, addresses, ports, and writes its plan to RunRoot
// before it makes anything → made → Connect, Disconnect, Publish, each written first → Leave, which gives names,
// addresses and ports back at once and leaves what the kernel is slow at to the reaper → its file goes last. So whatever
// moment the engine dies at, the next one finds in the file what may be there, by names that follow from it, and either
// keeps it, when the container runs, or takes it away (Recovered).
//
//	types.go    the values          config.go   what Open is told    networks.go   Open, Close, Get, List
//	create.go   requests read       subnets.go  subnets chosen       predefined.go bridge, host and none
//	store.go    files of networks   remove.go                        plugins.go    drivers and addresses of others
//	want.go     wants read          plan.go     addresses, gateway   ports.go      bindings, gates
//	join.go, leave.go, connect.go, publish.go                        pool.go       ready namespaces
//	sandbox.go  files of RunRoot    reaper.go   what is going away   sweep.go      what a crash left
//	names.go    for the resolver    firewall.go for the rules
//
// The package runs no program on the way of a container's start, but those that a CNI network is made of, and knows nothing of containers but what a Want says.
package network
