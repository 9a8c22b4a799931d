// Package starter writes the first Dockerfile, .dockerignore and compose file of a project: berth init.
//
// The life of a start: Look at a directory → a Project: kind, versions, names, ports, as its files tell → Files: texts from templates → Write,
// which overwrites nothing. What a project's files do not tell is asked of nobody: the Dockerfile says in a comment what was assumed.
//
// It reads only the directory that it is given, and contacts nobody.
package starter
