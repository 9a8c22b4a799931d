// Package records is what can be done with the records of builds that were, beyond looking at them: bundles that Docker Desktop opens
// (.dockerbuild), and traces.
//
// A trace is the text of spans that the engine keeps with a record, one JSON object after the other; it is shown as a table, or as Jaeger's JSON. A
// bundle is an archive of an OCI layout with a manifest for each record: the record is its config, and what belongs to it (log, trace, provenance,
// descriptions of images) are its layers. No layer of an image is in it.
//
// It contacts no engine: whoever calls it has the means to read blobs.
package records
