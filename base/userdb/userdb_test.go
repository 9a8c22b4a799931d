package userdb

import (
	"fmt"
	"slices"
	"testing"
)

const passwd = `root:x:0:0:root:/root:/bin/sh
# comment
daemon:x:1:1::/usr/sbin:/bin/false
broken:x:y:1::/:
app:x:1000:1001:App,,,:/home/app:/bin/sh
1234:x:77:78::/odd:/bin/sh
nohome:x:5:5:::
few:x:9:9
+nis::::::
`

const groups = `root:x:0:
wheel:x:10:root,app
app:x:1001:
docker:x:999:app
short:x:7
bad:x:z:app
`

func TestLookup(t *testing.T) {
	for _, c := range []struct {
		spec string
		add  []string
		want string
	}{
		{"", nil, "{0 0 [10] /root root}"},
		{"0", nil, "{0 0 [10] /root root}"},
		{"root", nil, "{0 0 [10] /root root}"},
		{"app", nil, "{1000 1001 [10 999] /home/app app}"},
		{"1000", nil, "{1000 1001 [10 999] /home/app app}"},
		{"app:wheel", nil, "{1000 10 [] /home/app app}"},
		{"app:4242", nil, "{1000 4242 [] /home/app app}"},
		{"4242", nil, "{4242 0 [] / }"},
		{"4242:app", nil, "{4242 1001 [] / }"},
		{"1234", nil, "{1234 0 [] / }"},
		{"nohome", nil, "{5 5 [] / nohome}"},
		{":app", nil, "{0 1001 [] /root root}"},
		{"app", []string{"short", "999", "55"}, "{1000 1001 [10 999 7 55] /home/app app}"},
		{"app", []string{"ghosts"}, "Unable to find group ghosts: no matching entries in group file"},
		{"app", []string{"-1"}, "uids and gids must be in range 0-2147483647"},
		{"app", []string{"99999999999999999999"}, "uids and gids must be in range 0-2147483647"},
		{"few", nil, "{9 9 [] / few}"},
		{"+5", nil, "{5 5 [] / nohome}"},
		{"007", nil, "{7 0 [] / }"},
		{"0x10", nil, "unable to find user 0x10: no matching entries in passwd file"},
		{"-1", nil, "uids and gids must be in range 0-2147483647"},
		{"app:-5", nil, "uids and gids must be in range 0-2147483647"},
		{"app:10:x", nil, "{1000 10 [] /home/app app}"},
		{"99999999999999999999", nil, "uids and gids must be in range 0-2147483647"},
		{"ghost", nil, "unable to find user ghost: no matching entries in passwd file"},
		{"app:ghosts", nil, "unable to find group ghosts: no matching entries in group file"},
		{"4294967295", nil, "uids and gids must be in range 0-2147483647"},
		{"0:4294967295", nil, "uids and gids must be in range 0-2147483647"},
		{"broken", nil, "unable to find user broken: no matching entries in passwd file"},
	} {
		u, err := Lookup(c.spec, []byte(passwd), []byte(groups), c.add)
		got := fmt.Sprintf("{%d %d %v %s %s}", u.UID, u.GID, u.Groups, u.Home, u.Name)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q %v: %s, want %s", c.spec, c.add, got, c.want)
		}
	}
	if u, err := Lookup("", nil, nil, nil); err != nil || u.UID != 0 || u.Home != "/" {
		t.Error("without files:", u, err)
	}
}

func FuzzLookup(f *testing.F) {
	f.Add("app:wheel", passwd, groups)
	f.Add("", "\x00:::", "::::")
	f.Fuzz(func(t *testing.T, spec, p, g string) {
		u, err := Lookup(spec, []byte(p), []byte(g), []string{"1"})
		if err == nil && (u.UID > maxID || u.GID > maxID || u.Home == "") {
			t.Errorf("%+v", u)
		}
	})
}

// CVE-2016-3697: a number must not be taken for the name of a user or group that an image gave another number.
func TestNumbersAreNoNames(t *testing.T) {
	passwd := []byte("1000:x:0:0:root in disguise:/root:/bin/sh\nroot:x:0:0::/root:/bin/sh\n")
	groups := []byte("1000:x:0:\n27:x:0:1000\n")
	u, err := Lookup("1000:1000", passwd, groups, []string{"27"})
	if err != nil || u.UID != 1000 || u.GID != 1000 || u.Name != "" || !slices.Equal(u.Groups, []uint32{27}) {
		t.Errorf("%+v %v", u, err)
	}
	// CVE-2024-40635: numbers that do not fit must not come out as another user's.
	for _, spec := range []string{"2147483648", "4294967296", "4294967295:0", "18446744073709551616", "0:4294967296", "-1"} {
		if u, err := Lookup(spec, passwd, groups, nil); err == nil {
			t.Errorf("%s is %+v", spec, u)
		}
	}
}
