#!/bin/sh
# install.sh: what `make install` does. Environment: PREFIX (/usr/local), DESTDIR (for packagers: files go
# below it and nothing on this machine is started or registered), HOST_BERTH (a berth that runs here, for completion), DOCKER=1 (also be `docker`, where no
# other engine is installed), BUILDX (be docker's plugin for builds where it has none: 1 unless there is a DESTDIR, 0 is never).
set -eu
[ $# = 0 ] || { sed -n "2,/^set /s/^# //p" "$0"; exit 2; } # there are no options: whoever asks for help wants nothing done
cd "$(dirname "$0")/.."
PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
BINDIR=$PREFIX/bin
UNITDIR=$PREFIX/lib/systemd/system
DOCDIR=$PREFIX/share/doc/berth
BIN=${BIN:-bin} # where make build left the programs
HERE= # set when this very machine is installed to
[ -n "$DESTDIR" ] || HERE=1

say() { echo "install: $*"; }

PROGRAMS="berth berthd berth-compose berth-init berth-keeper berth-oci"
for b in $PROGRAMS; do
  [ -x "$BIN/$b" ] || { say "$BIN/$b is not there: run make build first" >&2; exit 1; }
done

# --- programs ---
install -d "$DESTDIR$BINDIR"
for b in $PROGRAMS; do
  # Beside and renamed over: a running berthd or keeper keeps its own file.
  install -m 0755 "$BIN/$b" "$DESTDIR$BINDIR/.$b.new"
  mv -f "$DESTDIR$BINDIR/.$b.new" "$DESTDIR$BINDIR/$b"
done

# --- units, with this prefix's paths ---
install -d "$DESTDIR$UNITDIR"
for u in berth.socket berth.service berth-keeper.service berth-containers.service; do
  sed -e "s|@BINDIR@|$BINDIR|g" -e "s|@DOCDIR@|$DOCDIR|g" "install/systemd/$u" >"$DESTDIR$UNITDIR/$u"
  chmod 0644 "$DESTDIR$UNITDIR/$u"
done

install -d "$DESTDIR$PREFIX/lib/systemd/user"
sed -e "s|@BINDIR@|$BINDIR|g" -e "s|@DOCDIR@|$DOCDIR|g" install/systemd/user/berth.service >"$DESTDIR$PREFIX/lib/systemd/user/berth.service"
chmod 0644 "$DESTDIR$PREFIX/lib/systemd/user/berth.service"

# --- completion ---
complete() { # SHELL FILE
  install -d "$DESTDIR$(dirname "$2")"
  "${HOST_BERTH:-$BIN/berth}" completion "$1" >"$DESTDIR$2"
}
complete bash "$PREFIX/share/bash-completion/completions/berth"
complete zsh "$PREFIX/share/zsh/site-functions/_berth"
complete fish "$PREFIX/share/fish/vendor_completions.d/berth.fish"

# --- documents ---
install -d "$DESTDIR$DOCDIR"
install -m 0644 README.md CHANGELOG.md LICENSE "$DESTDIR$DOCDIR/"

# --- the name docker and its socket ---
# Another engine's program or live socket means: not ours to take. Docker's command line alone is no
# engine: it keeps its name and finds us at its socket.
engine() {
  for p in /usr/bin/dockerd /usr/local/bin/dockerd /usr/sbin/dockerd /usr/bin/podman-docker; do
    if [ -e "$DESTDIR$p" ]; then echo "$p"; return 0; fi
  done
  if [ -n "$HERE" ] && [ -S /run/docker.sock ] && [ ! -L /run/docker.sock ]; then echo /run/docker.sock; return 0; fi
  return 1
}
command_line() {
  for p in /usr/bin/docker /usr/local/bin/docker "$BINDIR/docker"; do
    f=$DESTDIR$p
    if [ -e "$f" ] && [ "$(readlink "$f" 2>/dev/null)" != berth ]; then echo "$p"; return 0; fi
  done
  return 1
}
if [ "${DOCKER:-}" = 1 ]; then
  if found=$(engine); then
    say "another engine is installed ($found): docker and its socket stay with it"
  else
    if found=$(command_line); then
      say "$found stays; it will find Berth at /run/docker.sock"
    else
      ln -sf berth "$DESTDIR$BINDIR/docker"
      say "$BINDIR/docker is berth"
    fi
    install -d "$DESTDIR$PREFIX/lib/tmpfiles.d"
    echo 'L+ /run/docker.sock - - - - /run/berth/berth.sock' >"$DESTDIR$PREFIX/lib/tmpfiles.d/berth-docker.conf"
    [ -z "$HERE" ] || ln -sfn /run/berth/berth.sock /run/docker.sock
  fi
fi

# --- docker's plugin for builds, where there is none ---
# The link lies where docker looks last, and at the path that packages of the plugin have: one that is installed later takes its place.
PLUGINS=/usr/libexec/docker/cli-plugins
buildx() {
  for d in /usr/local/lib /usr/local/libexec /usr/lib /usr/libexec; do
    p=$d/docker/cli-plugins/docker-buildx
    if [ -e "$DESTDIR$p" ] && [ "$(readlink "$DESTDIR$p" 2>/dev/null)" != "$BINDIR/berth" ]; then echo "$p"; return 0; fi
  done
  return 1
}
if [ "${BUILDX:-$HERE}" = 1 ] && ! buildx >/dev/null; then
  install -d "$DESTDIR$PLUGINS"
  ln -sfn "$BINDIR/berth" "$DESTDIR$PLUGINS/docker-buildx"
  say "docker buildx is berth: no plugin for builds was there"
fi

# --- a context for docker's own command line, for root and for who called sudo ---
if [ -n "$HERE" ] || [ -n "${DOCKER_CONFIG:-}" ]; then
  context() { # AS-WHOM
    $1 env -u DOCKER_HOST -u DOCKER_CONTEXT "$BERTH" context inspect berth >/dev/null 2>&1 ||
      $1 env -u DOCKER_HOST -u DOCKER_CONTEXT "$BERTH" context create berth \
        --description "Berth on this machine" --docker host=unix:///run/berth/berth.sock >/dev/null 2>&1 ||
      say "the docker context berth could not be registered ($1)"
  }
  BERTH=$DESTDIR$BINDIR/berth
  context ""
  if [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ] && [ -z "${DOCKER_CONFIG:-}" ] && command -v runuser >/dev/null; then
    context "runuser -u $SUDO_USER --"
  fi
fi

# --- start, where systemd runs ---
if [ -n "$HERE" ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl enable --now berth-keeper.service berth.socket berth.service
  # An engine of an older build is replaced; containers go on.
  systemctl try-restart berth.service
  say "berth.service is started; journalctl -u berth"
elif [ -n "$HERE" ]; then
  say "no systemd here: the first berth command that root types starts the engine"
fi
say "done: $DESTDIR$BINDIR/berth"
