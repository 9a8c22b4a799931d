package image

import (
	"encoding/binary"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"berth/base/fault"
)

// as1 rewrites a closed database as the first release wrote it.
func as1(t *testing.T, path string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *bolt.Tx) error {
		if err := tx.DeleteBucket(bucketSources); err != nil {
			return err
		}
		images, names := map[string]string{}, map[string]string{}
		tx.Bucket(bucketImages).ForEach(func(k, v []byte) error {
			var st stored
			if err := json.Unmarshal(v, &st); err != nil {
				t.Fatal(err)
			}
			old := map[string]any{"tagged": st.Tagged}
			if st.Parent != "" {
				old["parent"] = st.Parent
			}
			if o := st.newest(); o != nil {
				old["manifest"] = o.Manifest
				if o.Index != nil {
					old["index"] = o.Index
				}
			}
			images[string(k)] = toJSON(t, old)
			return nil
		})
		tx.Bucket(bucketNames).ForEach(func(k, v []byte) error {
			var to target
			if err := json.Unmarshal(v, &to); err != nil {
				t.Fatal(err)
			}
			names[string(k)] = string(to.ID)
			return nil
		})
		for k, v := range images {
			tx.Bucket(bucketImages).Put([]byte(k), []byte(v))
		}
		for k, v := range names {
			tx.Bucket(bucketNames).Put([]byte(k), []byte(v))
		}
		return tx.Bucket(bucketMeta).Put(keyVersion, binary.BigEndian.AppendUint32(nil, 1))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDatabaseOfFormat1(t *testing.T) {
	h := open(t)
	m := makeSeveral(t, "1")
	arm := platform(t, "linux/arm64")
	h.load(m.archive("docker.io/library/app:1", "docker.io/library/app:2"))
	if _, err := h.Remove(ctx, "app:1", RemoveOptions{Platforms: []Platform{arm}}); err != nil {
		t.Fatal(err)
	}
	lone := small(t, "lone", nil)
	h.load(lone.dockerArchive(t, "lone:1"))
	h.Close()
	as1(t, filepath.Join(h.root, "images.db"))
	h.Store = nil
	for range 2 {
		h.reopen()
		img, err := h.Resolve("app:2")
		if err != nil || img.ID != m.amd.id() || img.Index.Digest != m.index.Digest || img.Manifest.Digest != m.manifests["amd64"].Digest {
			t.Fatalf("%+v %v", img, err)
		}
		same(t, "names", img.RepoTags, []string{"app:1", "app:2"})
		same(t, "lone", h.files("lone:1"), []string{"f=lone"})
		c, err := h.Fsck(ctx, nil)
		if err != nil || !c.OK() || c.Layers != 4 {
			t.Errorf("%+v %v", c, err)
		}
	}
	// The layers are known from now on also where the configuration is lost.
	if err := h.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketImages).ForEach(func(k, v []byte) error {
			if !strings.Contains(string(v), `"layers":["sha256:`) {
				t.Errorf("%s: %s", k, v)
			}
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
}

func TestDatabaseOfANewerFormat(t *testing.T) {
	h := open(t)
	if err := h.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keyVersion, binary.BigEndian.AppendUint32(nil, dbVersion+1))
	}); err != nil {
		t.Fatal(err)
	}
	h.Close()
	if s, err := Open(Config{Root: h.root}); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "another version of Berth") {
		t.Errorf("%v", err)
		if s != nil {
			s.Close()
		}
	}
}
