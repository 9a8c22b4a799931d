package userdirs

import "testing"

func TestOf(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want Dirs
	}{
		{map[string]string{"HOME": "/h"}, Dirs{"/h/.berth-run/berth", "/h/.local/share/berth", "/h/.config/berth"}},
		{map[string]string{"HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/7", "XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "relative"},
			Dirs{"/run/user/7/berth", "/d/berth", "/h/.config/berth"}},
	} {
		if got := Of(func(k string) string { return c.env[k] }); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.env, got, c.want)
		}
	}
}
