// Package classic speaks as Docker's classic builder did: "Step 2/3 : RUN make", " ---> Using cache", "Successfully built …".
// Clients read these lines: docker-py looks for the last one, people for the first.
//
// Builds of the classic API go the way of all others, and what happens there are vertices of a graph, many at a time. A Transcript
// tells them in the order of the Dockerfile: it knows the instructions, waits for the vertex of each that makes a layer, and prints its
// output below it, while the output of steps that are ahead is held back. An instruction that only describes the image has no vertex
// and is told when its turn comes. What stands behind "--->" is the beginning of the step's digest: there are no images in between.
//
// The package does not build, and knows nothing of HTTP.
package classic
