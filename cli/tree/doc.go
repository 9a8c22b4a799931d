// Package tree owns Docker's command tree: every command of docker/cli, built all at once for help or
// one alone for a word typed. Nothing of it is ours but the selection.
//
// docker/cli registers its commands in a list inside an internal package, and the one public door to
// that list imports every command there is, `stack` with its schema compiler among them: 9 of the 20
// milliseconds of processor time that the whole tree costs before main. So this package imports the
// command packages it wants, reads the list by its linker name and builds only the command needed.
// docs/decisions/0003-command-line.md has the figures; a renamed list is a link error, not a surprise.
//
// It never contacts an engine.
package tree
