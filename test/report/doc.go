// Command report runs "go test -json" and tells what happened the way a person wants to read it: one
// line a package while it goes, then every failure with its output, every skipped test with the
// facility that was missing, and one closing line of totals. It exits 1 when a test failed or a
// package did not build.
//
//	report [-json FILE] [-slow DURATION] -- GO-TEST-ARGUMENTS...
//	report -read FILE
//
// A skipped test is never counted as passed. The event stream is described by "go doc test2json".
package main
