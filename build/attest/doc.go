// Package attest says what is known of a build's result: where it came from (provenance) and what is in it (a bill of
// materials), in the words of in-toto, SLSA and SPDX.
//
// Words. Facts are what a build saw: its request, its sources with their digests, its steps. A predicate is a document that states
// such things; a statement joins it with its subjects, the digests that it speaks of. A scan finds the packages in a tree from the
// databases that package managers leave.
//
// The life of a provenance: Parse reads what the client asks for (attest:provenance, attest:sbom) before the build; while it runs, Facts are
// gathered by whoever runs it; Predicate makes the document when the build has ended. Secrets are named and never quoted:
// credentials in URLs are cut out, values of secrets are not even known here.
//
// The package is pure but for Scan, which reads files of the tree that it is given and nothing else. It never
// signs anything: that is the client's.
package attest
