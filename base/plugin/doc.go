// Package plugin is the client of Docker's plugin protocol (v1): programs beside the engine that serve
// volumes, networks or addresses over HTTP on a socket. The rooms that have such drivers share it.
//
// Words. A plugin is found by its name: NAME.sock or NAME/NAME.sock in the sockets' directory, or
// NAME.spec (one line, a URL) or NAME.json (address and TLS files) in a directory of specs. It is
// activated once: Plugin.Activate answers which subsystems it serves ("VolumeDriver", "NetworkDriver",
// "IpamDriver"). After that every call is POST /Subsystem.Method with JSON both ways.
//
// Life of a Plugin: Registry.Get finds and activates it, Call uses it. Nothing is kept open between
// calls, so a plugin may be restarted at any time. One whose socket is another file than the one that was
// activated (a restart made it anew) is activated again. Close ends what is under way.
//
// Waiting is bounded everywhere: a plugin that cannot be connected to is tried again for Config.Wait, one
// that does not answer is given up after Config.Timeout, and answers longer than 16 MiB are refused.
// A request that reached the plugin is never sent twice: creating something twice is worse than an error.
//
// It never starts, stops or installs plugins, and knows no subsystem's methods.
package plugin
