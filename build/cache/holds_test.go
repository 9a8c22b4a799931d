package cache

import (
	"os"
	"path/filepath"
	"testing"

	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Layers of images may be named by sha512.
func TestOtherNamesOfLayers(t *testing.T) {
	b := open(t)
	other := digest.SHA512.FromString("layer")
	b.layers.holds[other] = 0
	r := Record{Keys: []digest.Digest{key("a")}, Outputs: [][]digest.Digest{{other, layerNo(0)}}, Description: "a"}
	if err := b.Put(r); err != nil {
		t.Fatal(err)
	}
	b.put("b", 1)
	b.close()
	b.reopen()
	if r := b.Lookup(key("a")); r == nil || r.Ghost || b.holds() != "11000" || b.layers.holds[other] != 1 {
		t.Errorf("%v, held %s and %d", r, b.holds(), b.layers.holds[other])
	}
	b.close()
	for n := range 20 {
		var list []digest.Digest
		for range n {
			list = append(list, other)
		}
		if hold := holdOf(append(list, layerNo(0))); n > 0 && len(hold)%32 == 0 {
			t.Errorf("%d bytes", len(hold))
		}
	}
}

// Holds that make no sense do not keep builds from beginning.
func TestDamagedHolds(t *testing.T) {
	b := open(t)
	b.put("a", 0)
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	err := b.db.update(func(tx *bolt.Tx) error { return tx.Bucket(bucketHolds).Put([]byte("~"), []byte("damaged")) })
	if err != nil {
		t.Fatal(err)
	}
	b.close()
	release, err := Retain(b.root, b.layers)
	if err == nil {
		t.Error("who sweeps layers is not told that some are not known")
	}
	release()
	b.reopen()
	if b.holds() != "00000" || b.Lookup(key("a")) != nil {
		t.Errorf("held %s", b.holds())
	}
	if _, err := os.Stat(filepath.Join(b.root, fileName+".damaged")); err != nil {
		t.Error(err)
	}
	b.put("a", 0)
	b.close()
}
