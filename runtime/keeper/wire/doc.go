// Package wire is the protocol between the engine and the keeper: messages and their encoding.
package wire
