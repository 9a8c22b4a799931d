package exec

import "strings"

// commandLine is a command as errors show it.
func commandLine(args []string) string { return strings.Join(args, " ") }
