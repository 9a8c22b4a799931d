package pattern

import "testing"

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"team/web", "team/web", true}, {"team/web", "team/web2", false}, {"team/*", "team/web", true}, {"team/*", "team/web/x", false},
		{"team/**", "team/web", true}, {"team/**", "team/web/x", true}, {"team/**", "team", false}, {"*/web/**", "a/web/x/y", true},
		{"**", "a/b", true}, {"v[0-9]*", "v1.2", true}, {"v?", "v12", false}, {"*", "a/b", false}, {"*", "a", true},
	} {
		if got := Match(c.pattern, c.name); got != c.want {
			t.Errorf("%s, %s: %v", c.pattern, c.name, got)
		}
	}
}

func TestCheck(t *testing.T) {
	for p, ok := range map[string]bool{"": false, "[": false, "**/web": false, "a**": false, "a/**": true, "**": true, "v*": true, "*/x": true} {
		if err := Check([]string{p}); (err == nil) != ok {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("team/**", "team/web")
	f.Add("[", "a")
	f.Fuzz(func(t *testing.T, p, name string) {
		Match(p, name)
		Check([]string{p})
	})
}
