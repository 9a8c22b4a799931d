// This file is empty on purpose: a package with an assembly file may declare a function without a body,
// which is how tree.go names docker/cli's list of commands.
