package lazy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/image/layer"
	"berth/image/lazy"
	"berth/kernel/tree"
)

// BenchmarkRestart is what an engine's start costs for a lazy layer of 10,000 files.
func BenchmarkRestart(b *testing.B) {
	var files []file
	for i := range 10_000 {
		files = append(files, file{name: fmt.Sprintf("usr/share/d%d/file-%d", i%100, i), body: fmt.Sprint(i)})
	}
	p := pack(b, "estargz", makeTar(b, files...), 0, 0)
	h := newHouse(b, lazy.Config{FillDelay: time.Hour, Keeper: newParker(b), Open: func(context_, string, descriptor) (lazy.Ranger, error) {
		o := newOrigin(p.blob)
		o.set(true, nil)
		return o, nil
	}})
	h.add(b, p, newOrigin(p.blob))
	for b.Loop() {
		b.StopTimer()
		h.m.Close()
		b.StartTimer()
		var err error
		if h.m, err = lazy.Open(ctx, h.cfg); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead reads 64 MiB through an overlay: from a view whose content is here, compressed, and from the unpacked layer.
func BenchmarkRead(b *testing.B) {
	const size = 64 << 20
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(i*7) ^ byte(i>>9)
	}
	for _, form := range forms {
		p := pack(b, form, makeTar(b, file{name: "a", body: string(body)}), 0, 0)
		for _, whole := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/whole=%v", form, whole), func(b *testing.B) {
				h := newHouse(b, lazy.Config{FillDelay: time.Hour})
				h.add(b, p, newOrigin(p.blob))
				if whole {
					h.m.Whole(ctx, p.diff)
				}
				h.layers.Create(ctx, "c", []digest.Digest{p.diff}, layer.CreateOptions{})
				b.SetBytes(size)
				for b.Loop() {
					err := h.layers.WithMount(ctx, "c", true, func(root *tree.Dir) error {
						got, err := os.ReadFile(filepath.Join(root.Path(), "a"))
						if len(got) != size {
							b.Errorf("%d bytes", len(got))
						}
						return err
					})
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
