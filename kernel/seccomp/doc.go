// Package seccomp compiles an OCI seccomp profile (specs.LinuxSeccomp) into a kernel filter without
// libseccomp and without cgo.
//
// Words. A profile has rules; a rule names system calls, an action and perhaps conditions on the
// arguments. An ABI is one numbering of system calls (x86_64, x32, i386 …); the kernel tells a
// filter an audit architecture and a number, and x86_64 and x32 share one architecture. A verdict is
// what the rules together say about one call: an action, or a list of conditional actions ending in
// the default. A filter is the finished classic BPF program.
//
// Life of a filter: Compile resolves names to verdicts, lays the verdicts of each ABI out as ranges
// of numbers, and emits a balanced tree over these ranges whose leaves share their actions. The
// launch program hands Filter.Code to seccomp(2). Filter.String prints it, Filter.Run evaluates it.
// Length is what counts: the kernel's cost of attaching a filter grows with its instructions, and a
// list of several hundred costs six times what a tree over ranges does.
//
// What a profile means is what runc and libseccomp make of it, so that the profiles people have keep
// their meaning; where the two leave a hole, the stricter reading is taken. The rules stand at Compile.
//
// The package never installs a filter, never reads a file and keeps no state.
package seccomp
