// Package volumetest is what every driver of volumes must do, as tests: the local driver, plugins and CSI drivers run the same
// suite through volume.Volumes, as the engine sees them.
//
// Main gives a test binary a mount namespace of its own, so that nothing it mounts is seen by, or left on, the machine.
package volumetest
