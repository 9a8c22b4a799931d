// Package build is the commands that build images: build, buildx, builder, bake and init.
//
// They need no plugin. What docker build and docker buildx build take, berth build takes; it speaks BuildKit's own protocol to the engine's /grpc
// and /session, so it also works with Docker's engine. The parts:
//
//	build.go     the build command: its flags, and what it does with the answer
//	run.go       one build on the wire, from request to answer
//	connect.go   the way to the engine
//	result.go    image ids, metadata files, what --call found, errors with the lines they are about
//	shell.go     a shell in a step that failed
//	request/     what was asked for, on its way to the wire
//	expand/      INCLUDE, IF and FOR
//	bake/        files with many builds
//	records/     traces and bundles of builds that were
//	starter/     Dockerfiles for projects that have none: berth init
//
// The life of a build: flags → request.Spec → Prepare → a session and a Solve on the wire, progress shown while it lasts → the answer printed
// and written where it was asked for.
package build
