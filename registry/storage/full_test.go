package storage_test

import (
	"context"
	"io"
	"strings"
	"syscall"
	"testing"

	"berth/base/fault"
	"berth/registry/storage"
	"berth/registry/storage/dir"
)

// fullDisk is a driver on whose disk there is room for four bytes of an upload.
type fullDisk struct{ storage.Driver }

type fullStaged struct{ storage.Staged }

func (d fullDisk) StartUpload(ctx context.Context, id string) (storage.Staged, error) {
	s, err := d.Driver.StartUpload(ctx, id)
	return fullStaged{s}, err
}

func (s fullStaged) Append(ctx context.Context, r io.Reader) (int64, error) {
	n, err := s.Staged.Append(ctx, io.LimitReader(r, 4))
	if err == nil && n == 4 {
		err = &storage.ShortError{Err: fault.Wrap(fault.Unavailable, syscall.ENOSPC, "full")}
	}
	return n, err
}

// What arrived of an upload before the disk was full does not keep it full.
func TestFullDiskIsLeft(t *testing.T) {
	root := t.TempDir()
	d, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.Open(t.Context(), fullDisk{d}, storage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	u, err := s.StartUpload(t.Context(), "a/b", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Append(t.Context(), -1, strings.NewReader("too much")); !storage.Full(err) {
		t.Fatalf("it fits: %v", err)
	}
	for p, err := range s.Uploads(t.Context()) {
		t.Errorf("upload %+v is left: %v", p, err)
	}
	if _, err := s.ResumeUpload(t.Context(), "a/b", u.ID()); !fault.Is(err, fault.NotFound) {
		t.Errorf("it can be gone on with: %v", err)
	}
}
