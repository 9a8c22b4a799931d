// Package container holds what the engine knows about one container, as plain values: what it was asked to be (Spec), what it
// is at a moment (Info), which moves between states are allowed (Status), and what the engine writes to disk (Record).
//
// Words. A Spec is the wish, in terms of no wire protocol: the Docker API, the CRI and the cluster agent each translate to it
// at their own door. An Info is a snapshot: it is never changed once handed out, so a reader needs no lock. A Record is the Spec
// with the facts fixed at creation (id, name, image, paths); it is the unit of durability.
//
// Life of the main value: a Spec is decoded at a door, checked and completed with the image's configuration when the container
// is created, frozen in a Record on disk, and from then on only replaced as a whole (rename, update).
//
// The package never touches the machine: no files, no processes, no clocks. It knows neither the Docker API nor the OCI runtime
// specification.
package container
