// Package health finds out whether containers are well.
//
// Words. A check is what a container's configuration asks for (container.Healthcheck). A probe is what a check makes of it: a command
// to be run in the container, or a question that is asked over its network (http, https, tcp, grpc). A result is one probe's outcome. The
// streak counts failures in a row.
//
//	created ──▶ starting ──success──▶ healthy ⇄ unhealthy
//	                 └──streak = retries──────────────▲
//
// Three parts that know nothing of each other. Begin, Decide and Due are pure: they say what follows from a result and when the next
// probe is to be made, as Docker's engine does. Parse reads a test, and Ask makes a network probe over a dialer it is given. Clock
// calls a function for each container at its time: one heap and one goroutine for all of them; a goroutine per container exists only
// while its probe is on its way.
//
// Life of a check: the container starts (Begin), Clock.Set; at its time the owner makes the probe, Decide gives the new health and Due
// the next time; the container is paused or ends, Clock.Drop. After a restart of the engine Resume spreads the probes that are overdue.
//
// The package never runs a process, knows no network namespace, writes nothing to disk and publishes nothing: that is its owner's.
package health
