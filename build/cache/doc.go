// Package cache remembers what steps gave, so that they need not run again.
//
// Words. A key is a digest that stands for the outcome of a step before it ran. A record says under which keys which
// chains of layers are known, one for each output of the step. A ghost is a record whose layers are gone: it still tells
// what the step gave, which is enough to find what was made from it. A remote is a cache elsewhere that is asked when
// there is no record here.
//
// On disk there is one bbolt file, cache.db (docs/formats-build.md). A record is written only after its layers are
// durable, a moment later and together with others; a crash before that loses the record and nothing else. At Open a
// record whose layers are not there becomes a ghost.
//
// A record holds its layers in the layer store as long as it lives; pruning releases them. Before the layer store is
// swept at the start of an engine, Open must have been called.
//
// The package never runs anything and never looks into a layer.
package cache
