package live

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// debianPatience bounds the making of one root: a fast mirror takes some twenty seconds.
const debianPatience = 8 * time.Minute

// DebianTar gives the path of a tar with a minimal Debian root of this machine's own release and the packages on top. It is made by
// mmdebstrap from the mirror that this machine's apt uses, once, and then kept in .cache. The error names what is missing.
func DebianTar(packages ...string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", errors.New("needs mmdebstrap: install the package of that name")
	}
	suite, mirror, err := debianMirror()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(packages, ",")))
	name := fmt.Sprintf("debian-%s-%s.tar", suite, hex.EncodeToString(sum[:4]))
	dir := filepath.Join(root, ".cache")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644) // test processes of several packages may want it at once
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if st, err := os.Stat(path); err == nil && st.Size() > 0 {
		return path, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), debianPatience)
	defer cancel()
	// apt asks again where a mirror does not answer: here, and in what is made, whose steps fetch packages of their own.
	args := []string{"--quiet", "--variant=minbase", "--format=tar", `--aptopt=Acquire::Retries "5"`}
	if len(packages) > 0 {
		args = append(args, "--include="+strings.Join(packages, ","))
	}
	out, err := exec.CommandContext(ctx, "mmdebstrap", append(args, suite, path+".new", mirror)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("mmdebstrap: %w: %s", err, tail(out))
	}
	return path, os.Rename(path+".new", path)
}

func tail(b []byte) []byte { return b[max(0, len(b)-500):] }

// debianMirror gives this machine's release and the mirror from which its own apt takes it.
func debianMirror() (suite, mirror string, err error) {
	out, err := exec.Command("sh", "-c", `. /etc/os-release && echo "$VERSION_CODENAME"`).Output()
	if err != nil {
		return "", "", errors.New("needs a Debian: /etc/os-release names no release")
	}
	suite = strings.TrimSpace(string(out))
	out, err = exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI)|$(CODENAME)|$(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return "", "", errors.New("needs apt-get: it knows where packages come from")
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Split(strings.TrimSpace(line), "|"); len(f) == 3 && f[1] == suite && f[2] == "main" {
			return suite, f[0], nil
		}
	}
	return "", "", fmt.Errorf("apt knows no mirror of %s (apt-get indextargets)", suite)
}
