// Package live runs a real berthd, built from this tree, on directories of its own: for tests that speak
// to a whole engine and for the benchmarks.
//
// An Engine is started, may be killed and started again on the same directories, and is stopped at
// the end with everything it made: containers, keeper, mounts, cgroups. What it leaves behind is an
// error of Stop, so that every test that uses one also tests that nothing is left. It touches no
// process, mount or cgroup that is not its own.
package live
