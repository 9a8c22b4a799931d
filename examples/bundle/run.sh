#!/bin/sh
# An OCI bundle from nothing: a root directory with busybox, a config.json, and berth-oci to run it.
# Usage, as root: run.sh [PROGRAM ARGS…]      BERTH_OCI names berth-oci when it is not on PATH.
set -eu
oci=${BERTH_OCI:-berth-oci}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

mkdir -p "$dir/rootfs/bin" "$dir/rootfs/proc" "$dir/rootfs/sys" "$dir/rootfs/dev" "$dir/rootfs/etc" "$dir/rootfs/tmp"
cp "$(command -v busybox)" "$dir/rootfs/bin/busybox"
for applet in sh ls cat id hostname ps mount echo true; do ln -s busybox "$dir/rootfs/bin/$applet"; done
echo 'root:x:0:0:root:/:/bin/sh' >"$dir/rootfs/etc/passwd"

# A docker-like specification: namespaces, masked paths, capabilities, the seccomp profile. Edit at will.
"$oci" spec --bundle "$dir"
[ $# -gt 0 ] || set -- sh -c 'id; hostname; ps'
args=
for a in "$@"; do args="$args${args:+, }\"$(printf %s "$a" | sed 's/\\/\\\\/g; s/"/\\"/g')\""; done
# The program, and no terminal: this may be run from a script.
tr -d '\n' <"$dir/config.json" |
  sed "s|\"args\": *\[[^]]*\]|\"args\": [$(printf %s "$args" | sed 's/[&|\\]/\\&/g')]|; s/\"terminal\": *true/\"terminal\": false/" >"$dir/config.json.new"
mv "$dir/config.json.new" "$dir/config.json"

"$oci" --root "$dir/state" run --bundle "$dir" "example-$$"
