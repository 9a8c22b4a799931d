// Package rootless makes an engine of an ordinary user: before anything of the engine is opened, berthd becomes root of a user namespace
// with a mount and a network namespace of its own, and goes on there as it does for root.
//
//	berthd (user)              clone3(NEWUSER, NEWNS, NEWNET)      holder: waits at its gate
//	  newuidmap, newgidmap
//	  opens the gate           ────────────────────────────────▶   prepares its mounts, waits again
//	  pasta for the way out, rootless.json
//	  opens the gate again     ────────────────────────────────▶   does nothing (sleep infinity)
//	  nsenter … berthd         ────────────────────────────────▶   the engine, root of the namespace, with the user's subordinate ids
//	  waits, passes signals on,
//	  keeps pasta running      ◀────────────────────────────────   exits
//
// Words. The holder is a process that does nothing and keeps the namespaces while no engine runs: containers, their networks and the
// keeper live in them. An engine that starts again joins the holder's namespaces through nsenter(1) instead of making new ones; the
// file EXEC-ROOT/rootless.json says where they are. Until it does, the holder ends with who makes it. pasta (package passt) carries packets
// between the namespace and the host: it binds a port of the host for every socket that listens inside, and clients keep their addresses.
// slirp4netns, where only that is installed, leads out and not in.
//
// The package knows no containers, and nothing of it runs for root.
package rootless
