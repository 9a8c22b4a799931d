package archive

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"berth/kernel/tree"
)

// leaving is a writer whose reader goes away after a while: ctx ends. It says itself that enough is enough only much later.
type leaving struct {
	left, late int64
	leave      context.CancelFunc
}

func (l *leaving) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		l.leave()
	}
	if l.late -= int64(len(p)); l.late < 0 {
		return 0, errors.New("nobody stops")
	}
	return len(p), nil
}

type noRecord struct{}

func (noRecord) Bytes([]byte) error                     { return nil }
func (noRecord) File(string, int64, int64) (int, error) { return 0, nil }

// A step makes a file of terabytes with one system call. What reads its hole ends when nobody wants it any more.
func TestHolesAreGivenUp(t *testing.T) {
	for name, write := range map[string]func(ctx context.Context, root *tree.Dir, w io.Writer) error{
		"seal": func(ctx context.Context, root *tree.Dir, w io.Writer) error {
			_, err := Seal(ctx, root, nil, w, SealOptions{Whiteouts: Overlay, Record: noRecord{}, RootMode: 0o755})
			return err
		},
		"diff": func(ctx context.Context, root *tree.Dir, w io.Writer) error {
			return Diff(ctx, root, w, WriteOptions{})
		},
		"between": func(ctx context.Context, root *tree.Dir, w io.Writer) error {
			empty, err := tree.OpenDir(t.TempDir())
			if err != nil {
				return err
			}
			defer empty.Close()
			return Between(ctx, empty, root, w, WriteOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			f, err := os.Create(filepath.Join(dir, "hole"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(1 << 40); err != nil {
				t.Skip("needs a file system with large sparse files: ", err)
			}
			root, err := tree.OpenDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if err := write(ctx, root, &leaving{left: 8 << 20, late: 256 << 20, leave: cancel}); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}
