// Package registry is `berth registry`: what a person types to serve a registry and to look after one.
//
// Words. A site is one registry: its address, how to trust it and who we are there. `serve` runs berthd, which has the registry in it;
// all other commands ask a site that runs, over its own routes /berth/registry/v1. The credentials are those that `berth login` (or docker
// login) keeps, also in a credential helper.
//
// The life of a command: its flags are parsed, the site is found (--url, BERTH_REGISTRY, else the only registry somebody has logged in to),
// one or two requests are made, and what they answered is printed as a table, or with --json as it came. Where a command changes much
// (gc, retention, replicate) --plan prints what the same command without it would do.
//
//	site.go    address and credentials        http.go   requests, tokens, errors
//	ask.go     passwords and confirmations    command.go   the tree, serve, whoami, and how answers are printed
//	user.go    access.go  repository.go  retention.go  upkeep.go  mirror.go  replicate.go  webhook.go: the nouns
//
// The package links nothing of the registry: shapes of answers are written down again where they are read.
package registry
