// Package engine is a container's life: it joins images, runtime and kernel into the verbs create, start, stop, remove and the
// rest, and keeps the truth about every container through its own death.
//
// Words. A record is what a container was asked to be, one durable JSON file. A state is where it stands (running, its pid, its
// exit), kept in a journal of this boot and copied to disk within a second. A snapshot (container.Info) joins both; list and
// inspect read snapshots only and so never wait for a verb at work on a container.
//
// Life of an Engine: Open recovers every container from disk, asks the keeper what lives and what ended meanwhile, finishes or
// undoes what was under way when the last engine died, sweeps what belongs to nobody, and serves. Close leaves the containers
// running.
//
// The engine never starts, reaps or reads from a process itself: the keeper does. It knows no Docker API types.
package engine
