// Package csi serves volumes by drivers of the Container Storage Interface, so that the drivers that Kubernetes uses work for one
// engine: it plays the parts of provisioner, attacher and kubelet at once, for the one node that is this host.
//
// Words. A driver is a program that answers gRPC on a unix socket, its endpoint. It has an identity, perhaps a controller service (makes,
// attaches, copies) and a node service (stages: mounts once on the host; publishes: shows it at a path). Which steps there are is asked.
//
// Where drivers are found, by name, in Config.Dirs:
//
//	DIR/NAME.json      {"endpoint": "unix:///…", "controller": "unix:///…", "parameters": {…}, "secrets": {…}, "unmounted": false}
//	DIR/NAME.sock, DIR/NAME/csi.sock, DIR/NAME/NAME.sock
//
// and the driver called "csi" takes its endpoint as an option of each volume. Options that are ours (see options.go) are taken away; the rest
// are parameters of CreateVolume.
//
// Life of a volume, each step noted before it is done, so that a crash, a hanging or a dead driver leaves nothing that nobody knows:
//
//	creating → CreateVolume → ready → DeleteVolume → gone           ROOT/NAME.json, durable
//	ControllerPublish → NodeStage → NodePublish … and back          durable: attached;  RUNROOT/NAME/state.json: staged, published
//	paths                                                           RUNROOT/NAME/staging, RUNROOT/NAME/target
//
// All calls of CSI are idempotent: what broke off is asked again with the same words. What was never finished (Create failed without a clear
// answer) is made and deleted again in the background until the driver says that nothing is left.
//
// A driver in a container needs RUNROOT at the same path and shared: -v RUNROOT:RUNROOT:rshared. One that mounts where the engine cannot see
// it is found out: a target that is no mount is refused, since data written there would be lost.
//
// A driver that does not answer is given up after Config.Timeout, and named. The package starts no drivers.
package csi
