// Package runline turns what inspect says of a container into the docker run command line that would make it again.
//
// Words. A line is a list of options, the image, and the words after it. An option is a flag with at most one value. A note says what a
// command line cannot say.
//
// Of takes away what the image's configuration and the engine's defaults bring along, so that a line holds what somebody asked for. A line
// prints as shell text, and can be changed (With, Without) before that: so a container is made again with something else.
//
// The package asks nobody: the answers of inspect, image inspect and info are its input.
package runline
