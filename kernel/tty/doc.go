// Package tty makes and steers pseudo-terminals: pairs of a master, which a terminal emulator or a keeper
// holds, and a terminal (slave), which a program has as its standard streams.
//
// Words. Size is rows and columns of characters. Raw means that what is typed goes through unchanged, one
// byte at a time, without echo. All descriptors are plain ints that the caller closes.
//
// A pair's life: Open → SetSize → the terminal becomes a program's standard
// streams and controlling terminal → reading the master ends with EIO when the last holder of the
// terminal is gone → close. The package copies no data and starts nothing.
package tty
