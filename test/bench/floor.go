package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"berth/base/tarstream"
	"berth/image/archive/compress"
)

// floor does what anybody must who pulls an image, and nothing else: fetch, hash, decompress, hash, unpack, one sync. It uses the
// decompressor and the parallelism of the engine, trusts its input, keeps nothing to rebuild the archive from, and knows one
// image. HOST/REPOSITORY:TAG is unpacked below dir.
func floor(name, dir string, parallel int) error {
	host, rest, _ := strings.Cut(name, "/")
	repo, tag, _ := strings.Cut(rest, ":")
	base := "http://" + host + "/v2/" + repo
	var m ocispec.Manifest
	if err := getJSON(base+"/manifests/"+tag, &m); err != nil {
		return err
	}
	var config struct{ RootFS ocispec.RootFS }
	if err := getJSON(base+"/blobs/"+string(m.Config.Digest), &config); err != nil {
		return err
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return errors.New("the image is damaged")
	}
	slots := make(chan struct{}, parallel)
	errs := make([]error, len(m.Layers))
	var wg sync.WaitGroup
	for i, d := range m.Layers {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = floorLayer(base, filepath.Join(dir, fmt.Sprint(i)), d, config.RootFS.DiffIDs[i])
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

func getJSON(url string, v any) error {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", dockerManifest)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(v)
}

func floorLayer(base, root string, d ocispec.Descriptor, diffID digest.Digest) error {
	resp, err := http.Get(base + "/blobs/" + string(d.Digest))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	v := d.Digest.Verifier()
	body := io.TeeReader(resp.Body, v)
	s, err := compress.NewStream(body, digest.SHA256)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := untar(root, s); err != nil {
		return err
	}
	got, _, err := s.Digest()
	switch {
	case err != nil:
		return err
	case got != diffID || !v.Verified():
		return fmt.Errorf("layer %s is damaged", d.Digest)
	}
	return nil
}

// untar unpacks directories and files by their paths. The pieces of the stream are written as they come, without a copy.
func untar(root string, s *compress.Stream) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	top, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	r := tarstream.NewReader(s, nil, tarstream.Limits{})
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Rest()
		}
		if err != nil {
			return err
		}
		at := []unix.Timespec{{Sec: h.ModTime.Sec, Nsec: h.ModTime.Nsec}, {Sec: h.ModTime.Sec, Nsec: h.ModTime.Nsec}}
		if h.Type == tarstream.Directory {
			p := filepath.Join(root, h.Name)
			if err := os.MkdirAll(p, 0o755); err != nil {
				return err
			}
			if err := errors.Join(unix.Chown(p, int(h.UID), int(h.GID)), unix.Chmod(p, uint32(h.Mode)), unix.UtimesNanoAt(unix.AT_FDCWD, p, at, 0)); err != nil {
				return err
			}
			continue
		}
		if err := unfile(top, h, at, r); err != nil {
			return err
		}
	}
}

func unfile(top int, h *tarstream.Header, at []unix.Timespec, r *tarstream.Reader) error {
	fd, err := unix.Openat(top, h.Name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	for left := h.Size; left > 0; {
		b, err := r.Payload(left)
		if err != nil {
			return err
		}
		left -= int64(len(b))
		if _, err := unix.Write(fd, b); err != nil {
			return err
		}
	}
	return errors.Join(unix.Fchown(fd, int(h.UID), int(h.GID)), unix.Fchmod(fd, uint32(h.Mode)), unix.Close(fd), unix.UtimesNanoAt(top, h.Name, at, unix.AT_SYMLINK_NOFOLLOW))
}
