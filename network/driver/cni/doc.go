// Package cni is networks of CNI plugins (specification 0.3.1 to 1.1.0): `docker network create -d cni --opt conf=FILE`, where
// FILE is any plugin's configuration or a chain of them, or the JSON itself.
//
// Words. A configuration is a list of plugins that are run one after the other, each getting the result of the one before.
// Capabilities are what a plugin of the list says it takes at run time: portMappings, bandwidth, ips, mac, dns. An attachment is a
// container's interface on the network, named by sandbox id and interface.
//
// The life of a network: Create reads the configuration, asks every plugin whether it is there, speaks the version and (1.1) is
// ready, and keeps a copy: what the file says later is for later networks. Join is ADD; when it fails, DEL. Leave is DEL with the
// configuration and arguments of its ADD, which libcni keeps in its cache. GC (1.1, and DEL for all versions) removes what nobody uses any
// more: before the first ADD since a boot all that was there before it, since IPAM plugins keep addresses on disk. Verify is CHECK.
//
// Plugins set addresses, routes and state themselves, and give addresses by their own IPAM plugins. They are programs: each runs in a
// process group of its own which is killed when its time is over, and may answer a megabyte.
//
// Options of a network: conf (above; without it the configuration of the network's name in /etc/cni/net.d), path (directories of plugins,
// separated by colons). Of an endpoint: cni.args ("KEY=VALUE;…", given as CNI_ARGS).
package cni
