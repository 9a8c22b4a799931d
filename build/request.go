package build

import (
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"

	"berth/build/exec"
)

// Request is one thing to be built. Exactly one of Frontend, Definition and Gateway says what; with none of
// them the build waits for a client that forwards its gateway by the build's id.
type Request struct {
	ID      string // the client's name of the build; "": one is made
	Session string // where context, secrets and credentials come from; "": nowhere

	Frontend       string                    // dockerfile.v0, gateway.v0
	FrontendAttrs  map[string]string         // the frontend's options, in BuildKit's words
	FrontendInputs map[string]*pb.Definition // named inputs
	Definition     *pb.Definition            // what to build, when no frontend is asked
	Gateway        gateway.BuildFunc         // a frontend in this process

	Exporters       []Exporter // where the result goes; none: it is only evaluated
	SessionExporter bool       // ask the session for more exporters when the result is known
	CacheImports    []Cache
	CacheExports    []Cache

	// Written hears the texts that a frontend's definitions were made of, Dockerfiles for one, before steps of them begin; nil: nobody
	// listens. It may be called more than once, and from several goroutines.
	Written func(*pb.Source)

	Entitlements  []string // network.host, security.insecure, device
	SourcePolicy  *spb.Policy
	PolicySession string      // the session that is asked about each source
	ProxyNetwork  bool        // steps reach the network only by the client's proxy
	Internal      bool        // not recorded
	Limits        exec.Limits // of each exec step
}

// Exporter says where a result goes: moby, image, oci, docker, local, tar; attributes in BuildKit's words.
type Exporter struct {
	Type  string
	Attrs map[string]string
}

// Cache is a remote cache: registry, local, inline, s3; attributes in BuildKit's words.
type Cache struct {
	Type  string
	Attrs map[string]string
}

// Response is what a build that succeeded says: keys and values in BuildKit's words, such as
// containerimage.digest and containerimage.config.digest.
type Response struct {
	ID       string
	Exported map[string]string
}
