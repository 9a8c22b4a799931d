package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Retain holds the layers that the records below root name, so that a sweep of the layer store leaves them, without
// opening a cache. What it gives back is called once Open has taken holds of its own. No cache there, or one that cannot
// be read, is no error: there is nothing to hold then.
func Retain(root string, layers Layers) (release func(), err error) {
	release = func() {}
	path := filepath.Join(root, fileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return release, nil
	}
	db, err := openFile(path, true)
	if err != nil {
		return release, nil // Open will set it aside and say so
	}
	var held [][]digest.Digest
	err = db.View(func(tx *bolt.Tx) error {
		if tx.Bucket(bucketHolds) == nil {
			return nil
		}
		return eachHold(tx, func(_ string, list []digest.Digest) {
			if layers.Retain(list...) == nil {
				held = append(held, list)
			}
		})
	})
	err = errors.Join(err, db.Close())
	return func() {
		for _, list := range held {
			layers.Release(list...)
		}
	}, err
}
