package cache

import (
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Bounds of what is kept. Steps that change nothing take no room that a rule of space would see.
const (
	maxRecords    = 100_000 // that are no ghosts
	maxGhosts     = 10_000
	maxAliases    = 200_000 // keys beside those that records were put under
	maxTraces     = 20_000
	maxTraceBytes = 256 << 20
)

// bounds are these, which tests make smaller.
type bounds struct{ records, ghosts, aliases, traces, traceBytes int }

var usual = bounds{maxRecords, maxGhosts, maxAliases, maxTraces, maxTraceBytes}

// crowd tells how many records, ghosts and traces there are, and whether that is too much. Keys are counted as aliases beyond two of
// each record, which most have.
type crowd struct {
	records              int
	ghosts, keys, traces bool // there are too many
}

// tooMany reports whether there are too many traces, or too large ones.
func (b *bounds) tooMany(traces bolt.BucketStats) bool {
	return traces.KeyN > b.traces || traces.LeafAlloc > b.traceBytes
}

func (d *database) crowd() (c crowd, err error) {
	err = d.view(func(tx *bolt.Tx) error {
		all, traces := tx.Bucket(bucketRecords).Stats().KeyN, tx.Bucket(bucketTraces).Stats()
		c.records = tx.Bucket(bucketHolds).Stats().KeyN
		c.ghosts = all-c.records > d.most.ghosts+d.most.ghosts/10
		c.keys = tx.Bucket(bucketKeys).Stats().KeyN > 2*all+d.most.aliases
		c.traces = d.most.tooMany(traces)
		return nil
	})
	return c, err
}

// tidy sweeps where there is much more than is to be kept.
func (d *database) tidy() error {
	c, err := d.crowd()
	if err != nil {
		return err
	}
	if c.keys {
		if err := d.dropAliases(); err != nil {
			return err
		}
	}
	if c.ghosts || c.traces || c.keys {
		return d.sweep(false)
	}
	return nil
}

// dropAliases deletes the keys that records got after they were put, all of them: nobody knows which are old. What is found under them
// is found by what it reads, which takes longer.
func (d *database) dropAliases() error {
	return d.update(func(tx *bolt.Tx) error {
		own := map[[32]byte]bool{}
		err := tx.Bucket(bucketRecords).ForEach(func(name, _ []byte) error {
			rec, err := readRecord(tx, name)
			if err != nil || rec == nil {
				return err
			}
			for _, k := range rec.Keys {
				if b := raw(k); len(b) == 32 {
					own[[32]byte(b)] = true
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		var aliases [][]byte
		err = tx.Bucket(bucketKeys).ForEach(func(key, _ []byte) error {
			if len(key) != 32 || !own[[32]byte(key)] {
				aliases = append(aliases, slices.Clone(key))
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, k := range aliases {
			if err := tx.Bucket(bucketKeys).Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// sweep deletes all ghosts, or those that have not been used for longest where there are too many, and keys that name nothing. Too many
// traces go all together: nobody knows which are old, and they only explain.
func (d *database) sweep(all bool) error {
	if !d.open() {
		return nil
	}
	return d.update(func(tx *bolt.Tx) error {
		type ghost struct {
			id   string
			last time.Time
		}
		var ghosts []ghost
		err := tx.Bucket(bucketRecords).ForEach(func(name, _ []byte) error {
			rec, err := readRecord(tx, name)
			if err == nil && rec != nil && rec.Ghost {
				ghosts = append(ghosts, ghost{rec.ID, rec.LastUsed})
			}
			return err
		})
		if err != nil {
			return err
		}
		slices.SortFunc(ghosts, func(a, b ghost) int { return b.last.Compare(a.last) })
		if !all {
			ghosts = ghosts[min(len(ghosts), d.most.ghosts):]
		}
		for _, g := range ghosts {
			if err := deleteRecord(tx, g.id); err != nil {
				return err
			}
		}
		var loose [][]byte
		err = tx.Bucket(bucketKeys).ForEach(func(key, id []byte) error {
			if tx.Bucket(bucketRecords).Get(id) == nil {
				loose = append(loose, slices.Clone(key))
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, k := range loose {
			if err := tx.Bucket(bucketKeys).Delete(k); err != nil {
				return err
			}
		}
		if !d.most.tooMany(tx.Bucket(bucketTraces).Stats()) {
			return nil
		}
		if err := tx.DeleteBucket(bucketTraces); err != nil {
			return err
		}
		_, err = tx.CreateBucket(bucketTraces)
		return err
	})
}
