// Package distributiontest is the distribution specification 1.1 as tests, for any registry that answers at a URL: pull, push,
// content discovery, content management, several digest algorithms, and what a hostile client may try. The cases follow the specification's
// text and the questions that its public conformance programs ask. It knows nothing of how the registry works.
package distributiontest
