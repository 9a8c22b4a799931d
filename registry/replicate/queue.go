package replicate

import (
	"bytes"
	"encoding/json"
	"sort"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"berth/base/fault"
)

const format = "1"

var (
	bucketMeta = []byte("meta")
	bucketJobs = []byte("jobs")
	keyFormat  = []byte("format")
	keyOpen    = []byte("open")
)

// Job is one thing that has to be brought to a target.
type Job struct {
	Rule       string        `json:"rule"`
	Repository string        `json:"repository"`
	Reference  string        `json:"reference"` // a tag, or the digest of a manifest that refers to another
	Delete     bool          `json:"delete,omitempty"`
	Digest     digest.Digest `json:"digest,omitempty"` // of what a deleted tag stood for
	Added      time.Time     `json:"added"`
	Next       time.Time     `json:"next"` // when it is tried next
	Tries      int           `json:"tries,omitempty"`
	Failed     bool          `json:"failed,omitempty"` // it is not tried again by itself
	Error      string        `json:"error,omitempty"`  // of the last try
}

func (j Job) key() []byte { return []byte(j.Rule + "\x00" + j.Repository + "\x00" + j.Reference) }

// queue is the jobs on disk.
type queue struct {
	db *bbolt.DB
}

// openQueue opens the file. unclean: it was not closed the last time.
func openQueue(file string) (q *queue, unclean bool, err error) {
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return nil, false, fault.In(err, "open the replication (%s)", file)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketMeta, bucketJobs} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if have := meta.Get(keyFormat); have != nil && string(have) != format {
			return fault.New(fault.Invalid, "it has format %s, this program reads %s", have, format)
		}
		unclean = meta.Get(keyOpen) != nil
		if err := meta.Put(keyOpen, []byte("1")); err != nil {
			return err
		}
		return meta.Put(keyFormat, []byte(format))
	})
	if err != nil {
		db.Close()
		return nil, false, fault.In(err, "open the replication (%s)", file)
	}
	return &queue{db}, unclean, nil
}

// close says that nothing was lost, and closes the file.
func (q *queue) close() error {
	err := q.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Delete(keyOpen) })
	if e := q.db.Close(); err == nil {
		err = e
	}
	return fault.In(err, "close the replication")
}

// add puts jobs into the queue; one for the same reference is replaced, and begins anew.
func (q *queue) add(jobs ...Job) error {
	err := q.db.Update(func(tx *bbolt.Tx) error {
		for _, j := range jobs {
			v, err := json.Marshal(j)
			if err != nil {
				return err
			}
			if err := tx.Bucket(bucketJobs).Put(j.key(), v); err != nil {
				return err
			}
		}
		return nil
	})
	return fault.In(err, "write the replication's jobs")
}

// settle takes a job that was done away, or puts back one that was tried. A job that was added again meanwhile stays as it is.
func (q *queue) settle(j Job, back *Job) error {
	err := q.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketJobs)
		var now Job
		v := b.Get(j.key())
		if v == nil || json.Unmarshal(v, &now) == nil && !now.Added.Equal(j.Added) {
			return nil
		}
		if back == nil {
			return b.Delete(j.key())
		}
		v, err := json.Marshal(back)
		if err != nil {
			return err
		}
		return b.Put(j.key(), v)
	})
	return fault.In(err, "write the replication's jobs")
}

// jobs gives the jobs of a rule for which fit is true, at most limit (0: all), in the order in which they are due.
func (q *queue) jobs(rule string, limit int, fit func(Job) bool) ([]Job, error) {
	var list []Job
	prefix := []byte(rule + "\x00")
	err := q.db.View(func(tx *bbolt.Tx) error {
		cur := tx.Bucket(bucketJobs).Cursor()
		for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
			var j Job
			if err := json.Unmarshal(v, &j); err != nil {
				return err
			}
			if !fit(j) {
				continue
			}
			if list = append(list, j); limit > 0 && len(list) == limit {
				return nil
			}
		}
		return nil
	})
	sort.SliceStable(list, func(a, b int) bool { return list[a].Next.Before(list[b].Next) })
	return list, fault.In(err, "read the replication's jobs")
}

// dropRule takes all jobs of a rule away.
func (q *queue) dropRule(rule string) error {
	err := q.db.Update(func(tx *bbolt.Tx) error {
		prefix, b := []byte(rule+"\x00"), tx.Bucket(bucketJobs)
		var keys [][]byte
		cur := b.Cursor()
		for k, _ := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
			keys = append(keys, bytes.Clone(k))
		}
		for _, k := range keys {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	return fault.In(err, "write the replication's jobs")
}

// isDigest reports whether a reference is a digest: a tag has no colon.
func isDigest(reference string) bool { return strings.Contains(reference, ":") }
