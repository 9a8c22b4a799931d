package history

import (
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// PutBlob keeps a document of a build that is active. It stays until the build's record is complete, and then if that names it.
func (s *Store) PutBlob(build, mediaType string, data []byte) (Blob, error) {
	b := Blob{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return Blob{}, err
	}
	if err := place(s.blobPath(b.Digest), data); err != nil {
		return Blob{}, fault.In(err, "write a document of a build record")
	}
	s.fresh[build] = append(s.fresh[build], b.Digest)
	return b, nil
}

// OpenBlob opens a document for reading; NotFound: it is not here.
func (s *Store) OpenBlob(d digest.Digest) (*os.File, error) {
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return nil, fault.New(fault.Invalid, "invalid digest %q", d)
	}
	f, err := os.Open(s.blobPath(d))
	if os.IsNotExist(err) {
		return nil, fault.New(fault.NotFound, "content %s: not found", d)
	}
	return f, err
}

// ReadBlob reads a document whole.
func (s *Store) ReadBlob(b Blob) ([]byte, error) {
	data, err := os.ReadFile(s.blobPath(b.Digest))
	if os.IsNotExist(err) {
		return nil, fault.New(fault.NotFound, "content %s: not found", b.Digest)
	}
	if err == nil && digest.FromBytes(data) != b.Digest {
		return nil, fault.New(fault.Internal, "content %s is damaged", b.Digest)
	}
	return data, err
}

func (s *Store) blobPath(d digest.Digest) string {
	return filepath.Join(s.cfg.Root, "blobs", d.Encoded())
}
