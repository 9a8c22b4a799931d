// Package solver finds the results of graphs: what is cached is not run, what nobody needs is not run, what does not
// depend on each other runs at the same time, and what two builds want is done once.
//
// Words. An outcome is what a vertex gives: one snapshot for each output. An identity is a digest of a snapshot's
// content that is often known before its data is here: of an image, of a record. A quick key is made of the operation
// and its inputs' identities; a content key of the operation and of just what it reads of its inputs. A record found
// under either is the outcome. Because keys are made of content, a step that ran again and gave the same as before lets
// everything after it be found.
//
// The life of a vertex in a build: its inputs are identified, which for a source means that it is pinned (a tag becomes a
// digest, a branch a commit, a context is brought up to date); its quick key is looked up here and in the caches that
// the build imports; if that fails its content key is computed, for which inputs may have to be fetched, and looked up;
// if that fails too it is run, its outputs are sealed, and a record is put under both keys. An outcome whose data is
// nowhere (a ghost) is good for keys; when its data is needed after all the vertex runs, and what was built on its
// identity is looked up again.
//
// Builds share running steps by quick key. A step is cancelled when no build waits for it any more.
//
// The package never touches files itself: operations and sources are given to it.
package solver
