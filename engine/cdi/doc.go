// Package cdi gives containers the devices that specifications of the Container Device Interface describe
// (https://github.com/cncf-tags/container-device-interface, SPEC.md): what a vendor's tool writes to /etc/cdi or /var/run/cdi says
// which nodes, mounts and variables make up "vendor.com/class=name".
//
// Words. A qualified name is such a name. A request is what --gpus and --device ask for: qualified names (driver "cdi"), or graphics
// cards by number or id, which become names of nvidia.com/gpu or amd.com/gpu. An edit is what a device changes in a container's OCI
// specification.
//
// Life of the main value: Devices is opened once with its directories and reads them anew each time it is asked, since tools may have
// written meanwhile; what it read is not kept.
//
// The package never writes specifications, and knows no hardware. Beyond tells what of the edits the engine's own launch does not carry
// out, for the engine to choose another way or to refuse: no edit is dropped.
package cdi
