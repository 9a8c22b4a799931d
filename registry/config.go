package registry

import (
	"log/slog"
	"time"

	"berth/registry/guard"
)

// Config is how a registry is run. Root or Storage is needed, everything else has a default.
type Config struct {
	Addr string // HOST:PORT that Serve listens on; "" is 127.0.0.1:5000
	Root string // the directory of all that is the registry's own, and of the content unless Storage says another place

	// Storage is where the content lies: "" or "dir:PATH", or
	// "s3://BUCKET[/PREFIX]?endpoint=URL&region=NAME&path-style=true". Keys come from the environment, as the AWS tools take them.
	Storage string

	TLSCert string // file with the chain, PEM; read again when it changes
	TLSKey  string // file with the key, PEM
	TLSCA   string // file with CAs: clients must show a certificate of one of them; "": none is asked for

	Htpasswd string       // password file, bcrypt; "": none. With none, no directory and no account everybody may do everything
	Auth     guard.Config // directories, administrators, life of tokens; Dir is set here

	Around Around // search, page, webhooks, metrics

	Collect Collect // garbage collection

	Copies Copies // mirrors of other registries, replication to others

	Grace         time.Duration // see storage.Config.Grace
	SparseIndexes bool          // see storage.Config.SparseIndexes
	ReadOnly      bool          // refuses everything that changes content

	Log *slog.Logger // nil: slog.Default()
}
