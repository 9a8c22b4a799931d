package quota_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"berth/base/fault"
	"berth/registry/quota"
)

type content map[string]int64

func (c content) Repositories(_ context.Context, prefix string) ([]string, error) {
	var names []string
	for n := range c {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	return names, nil
}

func (c content) Size(_ context.Context, name string) (int64, error) { return c[name], nil }

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "quota.json")
	there := content{"team/web": 100, "team/db": 50, "teams/x": 1000, "alone": 10}
	q, err := quota.Open(file, there)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Check(t.Context(), "team/web", 1<<60); err != nil {
		t.Errorf("without limits: %v", err)
	}
	if err := q.Set(quota.Limits{Repository: 200, Repositories: map[string]int64{"team/db": 60, "teams/x": 0}, Organisations: map[string]int64{"team": 170}}); err != nil {
		t.Fatal(err)
	}
	if q, err = quota.Open(file, there); err != nil { // they are on disk
		t.Fatal(err)
	}
	for _, c := range []struct {
		repo string
		more int64
		fits bool
	}{
		{"team/web", 20, true}, {"team/web", 21, false}, // the organisation's
		{"team/db", 10, true}, {"team/db", 11, false}, // its own
		{"team/new", 20, true}, {"team/new", 21, false},
		{"teams/x", 1 << 60, true}, // its own says none
		{"alone", 190, true}, {"alone", 191, false}, {"alone", 1<<63 - 1, false},
	} {
		err := q.Check(t.Context(), c.repo, c.more)
		if (err == nil) != c.fits || err != nil && !fault.Is(err, fault.Forbidden) {
			t.Errorf("%d more in %s: %v, want fits %v", c.more, c.repo, err, c.fits)
		}
	}
	if u, err := q.Organisation(t.Context(), "team"); u != (quota.Use{Used: 150, Limit: 170}) || err != nil {
		t.Errorf("use %+v, %v", u, err)
	}
	for _, bad := range []quota.Limits{{Repository: -1}, {Repositories: map[string]int64{"../x": 1}}, {Organisations: map[string]int64{"a/b": 1}}} {
		if err := q.Set(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v, want Invalid", bad, err)
		}
	}
}
