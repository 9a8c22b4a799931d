// Package zoo has programs of other people speak to a real engine: libraries and tools that were written for Docker and know nothing of
// Berth. Each is a test, and each one's own checks decide.
//
//	python3-docker   Debian's package, driven by testdata/python/zoo.py
//	dockerode        testdata/node/dockerode.js
//	testcontainers   testdata/node/testcontainers.js, with a reaper (see ryuk) that takes away what a killed test left behind
//	@devcontainers/cli   devcontainer up, exec and a feature-less image
//	websocket        attaching by the package that moby tests with
//	Traefik          its Docker provider (see traefik), on the engine's own socket and on one that may only read
//
// The stock command line is tried by test/script, which runs every script with it. Nothing is downloaded but by package: what runs on
// Node is installed into .cache with the versions of testdata/node/package-lock.json, and Traefik's provider is a Go module of its own.
// A client whose program cannot be had is skipped by name.
package zoo
