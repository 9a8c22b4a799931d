// Package buildkit is the door of BuildKit's protocol: what docker build, buildx, compose and BuildKit's own client speak
// to the engine. It translates; package build does the work.
//
// Words. Control is the service that starts and watches builds; the bridge (LLBBridge) is the service by which
// a frontend that runs at the client asks for steps of a build, which it names in the metadata of each call;
// a session is a connection in the other direction, on which the engine calls the client.
//
// A connection's life: the API server upgrades POST /grpc, or the socket of its own accepts; ServeConn speaks gRPC on it
// until the client goes away. All connections share one gRPC server, made with the first of them.
//
//	moby.buildkit.v1.Control              control.go, history.go, usage.go
//	moby.buildkit.v1.frontend.LLBBridge   bridge.go
//	containerd.services.content.v1        content.go: logs and attachments of build records, read only
//	opentelemetry TraceService            spans are taken and dropped
//	grpc.health.v1.Health
//
// The package keeps nothing on disk and knows nothing of how things are built.
package buildkit
