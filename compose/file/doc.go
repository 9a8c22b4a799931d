// Package file has what compose files say, as plain values that go from one program to another.
//
// Words. A Question has files and the environment that their variables are set by; an Answer is what they say together, or what is wrong with
// them. Builds are what there is to build: a Build for each service that has a build section.
//
// Files are read by package load, with the library of Compose. Linking that costs every start of a program some 7 ms of processor time,
// because it compiles the JSON schema of the format before main; so berth-compose links it and berth does not: they speak in these values.
//
// The package reads no files and knows no engine.
package file
