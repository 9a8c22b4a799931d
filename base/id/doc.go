// Package id makes and shortens the identifiers that containers, execs, networks and images go by:
// 256 random bits (or a sha256 digest) written as 64 lower-case hex digits, shown as the first 12.
// It never looks anything up: whether a prefix is unique is its owner's question.
package id
