// Package load reads compose files with the library of Compose: merging, extends, include, variables and .env files mean what they mean to
// docker compose. Package file has the values that come out, and says why they are apart.
//
// It reads the files that others lead to, and those that services take their environment from. It never contacts an engine.
package load
