// Package checkpoint drives criu, which saves the processes of a container to image files and makes
// them again from there.
//
// A Dump or a Restore is a plain description; Args gives the command line that it comes to, and Run
// executes criu with it. Beside criu's own files an image directory holds descriptors.json, which says
// what the first process's standard streams were, so that Restore can put others in their place.
//
// The package never decides what a container is: root, mounts and cgroups are told to it. It never
// links criu's libraries; where criu is not installed, or cannot work on the kernel, that is the error.
package checkpoint
