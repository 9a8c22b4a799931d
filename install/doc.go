// Package install holds what `make install` puts on a machine, and the test that it does: systemd units,
// the scripts install.sh and uninstall.sh. It has no code of its own.
package install
