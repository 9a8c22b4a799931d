// Package tty steers pseudo-terminals: pairs of a master, which a terminal emulator or a keeper holds, and a
// terminal (slave), which a program has as its standard streams.
//
// Words. Size is rows and columns of characters. All descriptors are plain ints that the caller closes, but for the one
// that ConsoleFile takes over.
//
// A pair's life: the launch program opens it in the container's own devpts, makes the terminal the standard streams and the
// controlling terminal of the program, and hands the master out → SetSize, ConsoleFile → reading the master ends with
// EIO when the last holder of the terminal is gone → close. The package opens no pair, copies no data and starts nothing.
package tty
