package access

import (
	"fmt"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// A registry of a hundred thousand repositories: what a first push, a decision and a token's groups cost.
func BenchmarkManyRepositories(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "rights.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	s.db.NoSync = true
	err = s.update(func(r *Rules, c *changes) error {
		for i := range 100_000 {
			repo := Repository{By: "alice", Grants: Grants{User("alice"): Owner, Group("dev"): Writer}}
			if err := c.repository(fmt.Sprintf("team%d/web", 1_000_000+i), &repo); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	who := Subject{Name: "bob", Groups: []string{"ops", "dev"}}
	b.Run("claim", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if err := s.Claim(who, fmt.Sprintf("new%d/x", i)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decide", func(b *testing.B) {
		for b.Loop() {
			s.Rules().Decide(who, "team1000007/web", Push)
		}
	})
	b.Run("groups of a token", func(b *testing.B) {
		for b.Loop() {
			s.Rules().Named(who.Groups)
		}
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			if err := s.db.View(func(tx *bbolt.Tx) error { return table(tx, bucketRepository, map[string]Repository{}) }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
