// Package request turns what a person asked of a build into what BuildKit's wire carries.
//
// A Spec is one build as the command line or a bake file names it: paths, flag values, nothing resolved. Its life:
// Parse… functions fill it from flag texts → Prepare checks it against the file system and the engine and gives a Request: solve options with
// their session's parts, and the names that messages are to show → Release removes what Prepare had to write.
//
// Flags, defaults and error texts are those of docker build with buildx, so that scripts which read them go on working. It contacts no engine.
package request
