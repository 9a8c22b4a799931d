// Package plugin installs managed plugins and runs them: programs that come from a registry like images and serve volumes, networks
// or the authorization of requests over a socket (package base/plugin speaks with them).
//
// Words. A plugin's configuration is its document (Config): what it runs, what it wants of the host, what may be set. Its settings
// (Settings) are what was set. A privilege is something it wants that a container does not have by itself; whoever installs
// it grants exactly what it asks for. An enabled plugin runs.
//
// A plugin's life: Pull or Create brings its layers and configuration, disabled. Set changes settings. Enable makes a container of
// it that no list shows, starts it and waits until its socket takes connections; it is started anew when it ends, and outlives the engine
// like any container. Disable removes that container. Upgrade replaces content and configuration of a disabled plugin. Remove
// takes everything away.
//
// On disk (docs/formats.md):
//
//	ROOT/p/ID/plugin.json   name, configuration, settings, enabled, digests of its blobs
//	ROOT/p/ID/l0, l1 …      its layers, unpacked, the lowest first
//	ROOT/p/ID/c/fs, c/work  upper and work directory of its container
//	ROOT/p/ID/propagated    where its mounts appear on the host
//	ROOT/blob               its layers as they came, for a push (package image/blob)
//	ROOT/tmp                plugins being installed; removed by Open
//	RUN/ID/                 its socket; 16 digits of the id
//
// The package gives the engine its own Images (Over), in which a plugin's id is a reference that no client can write. It
// never decides what a plugin's answers mean.
package plugin
