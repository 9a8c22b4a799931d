// Package conform asks a real engine everything that the published descriptions of Docker's API have, in every version that has one,
// and compares what comes back with the description.
//
// From each operation of each document come requests: the good ones of the table in ask_test.go (a description does not say
// which container may be unpaused), and, made from the operation's own parameters, one for a thing that is not there, numbers and
// filters that are none, every switch on and off, and bodies that are not what they should be. Of each answer the status code must be the
// one for the situation and be listed for the operation; the body must fit the schema of that version, with nothing required missing
// and no name that the version has not; the media type must be one that is listed.
//
// What deviates and should is in known_test.go, each with its reason, and is an error as soon as it does not occur any more.
// With -against the same requests go to another engine: what a real dockerd does with them decides disputes.
package conform
