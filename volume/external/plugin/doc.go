// Package plugin serves volumes by Docker's volume plugins: programs beside the engine that answer
// VolumeDriver.Create, Remove, Mount, Path, Unmount, Get, List and Capabilities (package base/plugin has the protocol's lower half).
//
// A plugin is not told twice to mount for one user: whether it counts is its own affair, so what it said is noted (package use), and a
// user whose mount is noted gets the noted path. Whatever the plugin does, calls end; errors carry its name or its words.
//
// It installs and starts no plugins.
package plugin
