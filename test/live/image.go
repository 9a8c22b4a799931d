package live

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// busybox finds a statically linked busybox.
func busybox() (string, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("no busybox on PATH")
	}
	f, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s is linked dynamically", path)
		}
	}
	return path, nil
}

// fetch is a program of the box: fetch HOST [SECONDS] gives the page / of a web server. Debian's static busybox has a wget, which
// crashes in a root without the C library.
const fetch = "#!/bin/sh\nprintf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w ${2:-30} $1 80 | grep ^page:\n"

var boxTar = sync.OnceValues(makeBoxTar)

// BoxTar gives a root file system as a tar: busybox, its applets as links, and the few files of /etc
// that programs ask for. `import` makes an image of it.
func BoxTar() ([]byte, error) { return boxTar() }

func makeBoxTar() ([]byte, error) {
	path, err := busybox()
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, dir := range []struct {
		name string
		mode int64
	}{{"bin/", 0o755}, {"etc/", 0o755}, {"root/", 0o700}, {"tmp/", 0o1777}} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir.name, Mode: dir.mode}); err != nil {
			return nil, err
		}
	}
	for _, f := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"bin/busybox", 0o755, program},
		{"bin/fetch", 0o755, []byte(fetch)},
		{"etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nsailor:x:1000:1000:sailor:/tmp:/bin/sh\n")},
		{"etc/group", 0o644, []byte("root:x:0:\nsailor:x:1000:\ndeck:x:2000:sailor\n")},
		{"etc/os-release", 0o644, []byte("ID=box\nNAME=\"Berth test box\"\n")},
	} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	for _, applet := range strings.Fields(string(list)) {
		if applet == "busybox" {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"}); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
