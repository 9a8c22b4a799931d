// Package clients gets other people's programs that build images, for tests: from Debian, from the Go module proxy, from npm. Each is
// made once and kept in .cache; who comes meanwhile waits. What cannot be had is an error that names what is missing.
//
// The package never installs anything into the machine.
package clients

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"berth/test/live"
)

// DebianBuildx is the plugin of Debian trixie, 0.13.
func DebianBuildx() (string, error) {
	root, err := trixie("docker-buildx")
	return filepath.Join(root, "usr/libexec/docker/cli-plugins/docker-buildx"), err
}

// DebianCompose is the plugin of Debian trixie, 2.26.
func DebianCompose() (string, error) {
	root, err := trixie("docker-compose")
	return filepath.Join(root, "usr/libexec/docker/cli-plugins/docker-compose"), err
}

// Buildx is a current one, of the version that test/zoo/buildx/go.mod names.
func Buildx() (string, error) {
	root, err := live.Root()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "test", "zoo", "buildx")
	dir, err := once("buildx", []string{filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum")}, "", func(dir string) error {
		return run(module, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "docker-buildx"), "github.com/docker/buildx/cmd/buildx")
	})
	return filepath.Join(dir, "docker-buildx"), err
}

// Config makes a directory for DOCKER_CONFIG in which the stock command line finds plugins.
func Config(dir string, plugins ...string) error {
	at := filepath.Join(dir, "cli-plugins")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	for _, p := range plugins {
		if err := os.Symlink(p, filepath.Join(at, filepath.Base(p))); err != nil {
			return err
		}
	}
	return nil
}

// trixie unpacks one package of Debian trixie, from the mirror that this machine's apt uses, verified as apt does.
func trixie(name string) (string, error) {
	const index = `set -e
mirror=$(apt-get indextargets --format '$(REPO_URI)|$(CODENAME)' 'Created-By: Packages' | grep -E '\|(bookworm|trixie)$' | head -n1 | cut -d'|' -f1)
[ -n "$mirror" ] || { echo 'apt names no Debian mirror'; exit 1; }
mkdir -p lists/partial archives/partial debs
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >sources.list
get() { apt-get -qq -o Dir::Etc::SourceList="$PWD/../sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$PWD/../lists" \
  -o Dir::Cache="$PWD/.." -o Dir::Cache::archives="$PWD/../archives" -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=5 "$@"; }
cd debs
get update
get download "$1"
for d in *.deb; do dpkg -x "$d" ../root; done`
	dir, err := once("trixie-"+name, nil, index, func(dir string) error {
		work, err := os.MkdirTemp("", "berth-trixie-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		if err := run(work, "sh", "-c", index, "sh", name); err != nil {
			return err
		}
		return run(work, "cp", "-a", "root", dir)
	})
	return filepath.Join(dir, "root"), err
}

// once gives a directory below .cache that make fills once for each state of the inputs and each salt.
func once(name string, inputs []string, salt string, fill func(dir string) error) (string, error) {
	root, err := live.Root()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprint(sum, salt)
	for _, in := range inputs {
		data, err := os.ReadFile(in)
		if err != nil {
			return "", err
		}
		sum.Write(data)
	}
	dir := filepath.Join(root, ".cache", "clients", name+"-"+hex.EncodeToString(sum.Sum(nil)[:6]))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.RemoveAll(dir + ".new"); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir+".new", 0o755); err != nil {
		return "", err
	}
	if err := fill(dir + ".new"); err != nil {
		return "", fmt.Errorf("needs %s: %w", name, err)
	}
	return dir, os.Rename(dir+".new", dir)
}

const patience = 10 * time.Minute

func run(dir, program string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(bytes.TrimSpace(out[max(0, len(out)-500):]))))
	}
	return nil
}
