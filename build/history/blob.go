package history

import (
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// PutBlob keeps a document. It stays once a record that names it is complete.
func (s *Store) PutBlob(mediaType string, data []byte) (Blob, error) {
	b := Blob{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return Blob{}, err
	}
	return b, fault.In(place(s.blobPath(b.Digest), data), "write a document of a build record")
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
