#!/bin/sh
# uninstall.sh: takes away what install.sh put there. Containers, images and their data (/var/lib/berth)
# stay; a keeper with running containers is left alone, as are the containers.
set -eu
[ $# = 0 ] || { sed -n "2,/^set /s/^# //p" "$0"; exit 2; } # there are no options: whoever asks for help wants nothing done
PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
say() { echo "uninstall: $*"; }

if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
  systemctl disable --now berth.socket berth.service berth-keeper.service 2>/dev/null || true
  systemctl stop berth-containers.service 2>/dev/null || true # kills nothing
fi
if [ -z "$DESTDIR" ] || [ -n "${DOCKER_CONFIG:-}" ]; then
  env -u DOCKER_HOST -u DOCKER_CONTEXT "$DESTDIR$PREFIX/bin/berth" context rm -f berth >/dev/null 2>&1 || true
fi
if [ "$(readlink "$DESTDIR$PREFIX/bin/docker" 2>/dev/null)" = berth ]; then
  rm -f "$DESTDIR$PREFIX/bin/docker"
fi
plugins=/usr/libexec/docker/cli-plugins
if [ "$(readlink "$DESTDIR$plugins/docker-buildx" 2>/dev/null)" = "$PREFIX/bin/berth" ]; then
  rm -f "$DESTDIR$plugins/docker-buildx"
  rmdir "$DESTDIR$plugins" "$DESTDIR${plugins%/*}" 2>/dev/null || true # others' plugins stay
fi
if [ -e "$DESTDIR$PREFIX/lib/tmpfiles.d/berth-docker.conf" ]; then
  rm -f "$DESTDIR$PREFIX/lib/tmpfiles.d/berth-docker.conf"
  if [ -z "$DESTDIR" ] && [ "$(readlink /run/docker.sock 2>/dev/null)" = /run/berth/berth.sock ]; then
    rm -f /run/docker.sock
  fi
fi
for f in bin/berth bin/berthd bin/berth-compose bin/berth-init bin/berth-keeper bin/berth-oci \
  lib/systemd/system/berth.socket lib/systemd/system/berth.service lib/systemd/system/berth-keeper.service \
  lib/systemd/system/berth-containers.service lib/systemd/user/berth.service \
  share/bash-completion/completions/berth share/zsh/site-functions/_berth share/fish/vendor_completions.d/berth.fish; do
  rm -f "$DESTDIR$PREFIX/$f"
done
rm -rf "$DESTDIR$PREFIX/share/doc/berth"
[ -n "$DESTDIR" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
say "done; /var/lib/berth was left as it is"
