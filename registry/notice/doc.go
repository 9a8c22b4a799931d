// Package notice says what happened in the registry: one Event per push, pull, mount and delete.
// registry/distribution makes events when a request has succeeded; webhooks, catalog, replication and retention
// read them. An event is a value: nobody changes it after it was made. The package never delivers anything.
package notice
