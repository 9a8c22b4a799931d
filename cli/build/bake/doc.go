// Package bake reads files that describe many builds: docker-bake.hcl, docker-bake.json and compose files.
//
// A target is one build by name, a group is several. Their life: files are read → one module (blocks and attributes, not yet evaluated) →
// Config: targets with values, groups → Resolve picks what was asked for, joins what targets inherit, applies --set → each target gives a
// request.Spec.
//
// The language is buildx bake's: HCL or its JSON form with variables that the environment may set, functions, matrices, inheritance, references
// between targets. Compose files are read by Compose's own library, several of them as one; what is not about builds is left out of them.
//
// It contacts no engine, and reads no file but those it is given, compose's .env, what a compose file includes, extends or takes its environment
// from (and whoever builds has to be asked about those outside of the working directory), and what names a secret.
package bake
