// Package build turns build requests into images and files: the Builder joins the packages of the room.
//
// Words. A request is what a client asks for with one call: a frontend with its options, or a definition
// (LLB) of its own, where the result shall go, which caches it may use. A build is a request under way; it
// has an id, chosen by the client, by which others watch it, feed it (the gateway) and cancel it. A
// frontend makes definitions of sources: dockerfile.v0 runs in this process, gateway.v0 is an image that
// is run as a step. The record is what is left of a build: its options, its log, its results.
//
// A build's life:
//
//	Solve      the request is checked; the build is entered under its id, from when on Status follows it
//	frontend   Dockerfile → definition → references (package frontend)
//	evaluate   references → snapshots (package solver)
//	attest     provenance and bills of materials (package attest)
//	export     snapshots → image store, registry, client (package export); remote caches (package remotecache)
//	record     what happened is written down (package history); Status ends
//
// The Builder opens its rooms at the first request that needs them, so that an engine that never builds
// pays nothing. What it left behind when it was killed is swept by Open of the rooms.
//
// The package never speaks a protocol to a client (api/buildkit and api/server do) and never touches
// containers of the engine.
package build
