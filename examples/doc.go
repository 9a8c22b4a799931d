// Package examples holds small programs and files that show how Berth is used, and the test that runs
// them. README.md lists them.
package examples
