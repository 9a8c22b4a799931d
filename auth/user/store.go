package user

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"berth/base/fault"
)

// version is that of the database's format.
const version = 1

var (
	bucketMeta    = []byte("meta")
	bucketAccount = []byte("account") // by name
	bucketToken   = []byte("token")   // personal tokens by id
	bucketSecret  = []byte("secret")  // a personal token's fingerprint → its id
	bucketRefresh = []byte("refresh") // refresh tokens by fingerprint
	keyVersion    = []byte("version")
)

// Store is the database of accounts. It is an auth.Directory.
type Store struct {
	db *bbolt.DB
}

// Open opens the database, and makes it where there is none. Another process that has it open is a Conflict.
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "accounts")
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 2 * time.Second, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fault.New(fault.Conflict, "%s is in use by another process", path)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open %s", path)
	}
	s := &Store{db: db}
	if err := db.Update(prepare); err != nil {
		db.Close()
		return nil, fault.In(err, "open %s", path)
	}
	return s, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

func prepare(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketMeta, bucketAccount, bucketToken, bucketSecret, bucketRefresh} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	meta := tx.Bucket(bucketMeta)
	have := meta.Get(keyVersion)
	if have == nil {
		return meta.Put(keyVersion, []byte(strconv.Itoa(version)))
	}
	if n, err := strconv.Atoi(string(have)); err != nil || n > version {
		return fault.New(fault.Conflict, "accounts of version %s: this program knows versions up to %d", have, version)
	}
	return nil
}

// get reads a record; false when there is none.
func get[T any](tx *bbolt.Tx, bucket, key []byte) (T, bool, error) {
	var v T
	raw := tx.Bucket(bucket).Get(key)
	if raw == nil {
		return v, false, nil
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, false, fault.Wrap(fault.Internal, err, "damaged record %s/%q", bucket, key)
	}
	return v, true, nil
}

func put(tx *bbolt.Tx, bucket, key []byte, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put(key, raw)
}

// each visits the records of a bucket in the order of their keys. A damaged one ends it.
func each[T any](tx *bbolt.Tx, bucket []byte, visit func(key []byte, v T) error) error {
	return tx.Bucket(bucket).ForEach(func(k, raw []byte) error {
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return fault.Wrap(fault.Internal, err, "damaged record %s/%q", bucket, k)
		}
		return visit(bytes.Clone(k), v)
	})
}

// below visits the records whose keys begin with a prefix.
func below[T any](tx *bbolt.Tx, bucket []byte, prefix string, visit func(key []byte, v T) error) error {
	c := tx.Bucket(bucket).Cursor()
	for k, raw := c.Seek([]byte(prefix)); bytes.HasPrefix(k, []byte(prefix)); k, raw = c.Next() {
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return fault.Wrap(fault.Internal, err, "damaged record %s/%q", bucket, k)
		}
		if err := visit(bytes.Clone(k), v); err != nil {
			return err
		}
	}
	return nil
}
