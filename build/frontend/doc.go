// Package frontend runs frontends: programs that turn sources into definitions, and solve those.
//
// Words. A client is what a frontend is given (BuildKit's gateway client): it solves definitions, resolves
// names of images, reads files of results, runs containers. A reference is the result of a solve, evaluated when
// somebody looks at it. The bridge is a client spoken over gRPC, for a frontend that runs in another process:
// a container (gateway.v0) or the program that asked for the build.
//
// A call's life: Host.Solve looks the frontend up; a Client is made with the call's options and inputs; the
// frontend is called and solves definitions by it, or again frontends; what it returns are references
// of this package; Close releases what it left open: containers, views, states of failed steps.
//
//	dockerfile.v0   BuildKit's Dockerfile frontend, in this process. "# syntax=docker/dockerfile:…" is this
//	                one as well, whatever its version: it is never fetched
//	gateway.v0      the frontend is an image: it is run as a container that speaks the bridge on its stdio
//
// The package never evaluates anything itself (package solver does) and knows no exporter.
package frontend
