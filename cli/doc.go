// Package cli is what a person types and reads: the berth command.
//
// Docker's commands come from docker/cli as a library (cli/tree), so their flags, output and exit codes
// are Docker's to the letter. Ours is what stands around them and what Docker has not:
//
//	main.go      one command line from arguments to exit code
//	root.go      the root command: global flags, help, unknown words, plugins
//	host.go      which engine: -H, BERTH_HOST, DOCKER_HOST, a context, else the default socket
//	support.go   what an older engine cannot do is said before it is asked
//	wording.go   "docker: …" in the library's texts becomes "berth: …"
//	explain.go   system.go  info.go  stack.go: commands of our own
//	network.go   port.go  volume.go: what Docker's commands of these nouns, run and update have more here
//	remote.go    requests to /berth/v1, Berth's own API
//	build.go     build/: building images, as commands and as Docker's plugin docker-buildx
//	daemon/      starting berthd when nothing listens
//
// The life of a command line: global flags are parsed, the engine is located (not contacted), the one
// command that was named is built and run; the first request dials, and dialling the default socket
// as root starts the engine when there is none.
//
// It never links the engine: it sees the API's types, its client and base.
package cli
