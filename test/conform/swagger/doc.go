// Package swagger reads the descriptions of Docker's API that moby publishes, one document for each version, and checks
// answers against them.
//
// Words. A Document is one version. An Operation is a method on a path of it, with its parameters and the status codes it
// lists. A Fault is a place in an answer that is not what the document says.
//
// The documents are those of the Go module github.com/moby/moby/api (docs/v1.25.yaml and on), read from the module cache:
// nothing of them is copied here. Only what they use of swagger 2.0 is understood; anything else fails loudly.
package swagger
