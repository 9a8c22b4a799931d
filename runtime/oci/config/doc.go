// Package config reads a bundle's config.json into the runtime specification's own types, without
// reflection: a fresh process has it in a tenth of the time that encoding/json takes.
//
// A Config's life: Parse → Spec (all but the seccomp section) and, only where somebody needs it,
// Seccomp, which decodes the section that Parse checked for grammar but left as text. That section
// is most of a usual file, and its compiled form is usually at hand already.
//
// It reads what applies to Linux; sections of other platforms are checked for grammar and ignored, as
// are unknown members (the specification demands that). It never judges what a value means.
package config
