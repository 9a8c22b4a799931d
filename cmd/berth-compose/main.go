// Command berth-compose reads compose files for berth, which would start more slowly if it linked the library that does so (package
// compose/file says why). A file.Question comes on standard input and a file.Answer goes to standard output, both as JSON. People have no use for it.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"berth/compose/file"
	"berth/compose/load"
)

// Set by the linker, see Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Printf("berth-compose %s, build %s: reads compose files for berth, which asks on standard input\n", version, commit)
		return
	}
	var q file.Question
	err := json.NewDecoder(os.Stdin).Decode(&q)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(load.Answer(q))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "berth-compose:", err)
		os.Exit(1)
	}
}
