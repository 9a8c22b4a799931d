// Package crash rehearses deaths. Its tests build berthd and the keeper, run them with a data root, sockets and cgroups of their own, and
// do to them what happens to engines: they are killed, at random and at every failpoint; their writes fail; the power is cut; the disk is
// full, or broken, or damaged; what they wait for does not answer.
//
// Words. A survivor is a container that lives through all of it. An ordeal is a sequence of verbs of which each changes facts, what a client
// sees, in a known way; a trial takes an engine through one, and compares facts with what was acknowledged. A disk is a block device
// that remembers every write and every flush; a cut is what the power's going leaves of it; silent is a file system that never answers.
//
// BERTH_SOAK makes them long, BERTH_SEED repeats what was random, -kills says how often.
package crash
