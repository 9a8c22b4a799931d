// Package volume is named directories that outlive containers.
package volume
