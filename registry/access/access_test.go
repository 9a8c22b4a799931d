package access

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"berth/base/fault"
)

var update = flag.Bool("update", false, "write the golden files")

// example are the rules that the tables below ask.
func example() Rules {
	r := Default()
	r.Site.Admins = []string{"group:ops"}
	r.Groups["release"] = []string{"rita"}
	r.Organisations["team"] = Organisation{Grants: Grants{User("olga"): Owner, Group("Dev"): Writer, Group("release"): Maintainer, User("rob"): Reader}}
	r.Organisations["open"] = Organisation{Visibility: Public, Grants: Grants{User("olga"): Owner}}
	r.Organisations["library"] = Organisation{Visibility: Public}
	r.Organisations["inner"] = Organisation{Visibility: Internal}
	r.Repositories["team/web"] = Repository{By: "wendy", Grants: Grants{User("wendy"): Owner, User("pat"): Writer}}
	r.Repositories["team/site"] = Repository{Visibility: Public}
	r.Repositories["open/secret"] = Repository{Visibility: Private, Grants: Grants{Group("dev"): Reader}}
	r.Repositories["team/mirror"] = Repository{Grants: Grants{Anyone: Reader, SignedIn: Writer}}
	r.Repositories["free/app"] = Repository{By: "carl", Grants: Grants{User("carl"): Owner}}
	r.Repositories["nick/mine"] = Repository{By: "nick", Grants: Grants{User("nick"): Owner}}
	r.Repositories["free/closed"] = Repository{By: "carl", Visibility: Private, Grants: Grants{User("carl"): Owner}}
	return r
}

func TestDecide(t *testing.T) {
	who := map[string]Subject{
		"-":     {},
		"olga":  {Name: "olga"},
		"dora":  {Name: "dora", Groups: []string{"dev"}},
		"rita":  {Name: "rita"},
		"rob":   {Name: "rob"},
		"wendy": {Name: "wendy"},
		"pat":   {Name: "pat"},
		"carl":  {Name: "carl"},
		"nick":  {Name: "nick"},
		"opal":  {Name: "opal", Groups: []string{"OPS"}},
		"root":  {Name: "root", Admin: true},
		// Tokens only narrow.
		"olga's pull token":  {Name: "olga", Limit: &Limit{Scopes: []Scope{{"team/web", []Action{Pull}}}}},
		"nick's team token":  {Name: "nick", Limit: &Limit{Scopes: []Scope{{"team/web", []Action{Pull, Push}}}}},
		"root's reader":      {Name: "root", Admin: true, Limit: &Limit{Every: []Action{Pull}}},
		"called like a user": {Name: "group:dev"},
	}
	// What each may do, by the actions' first letters: Pull, push (U), Delete, Admin.
	for _, c := range []struct{ repository, who, may string }{
		{"team/web", "-", ""}, {"team/web", "olga", "PUDA"}, {"team/web", "dora", "PU"}, {"team/web", "rita", "PUD"}, {"team/web", "rob", "P"},
		{"team/web", "wendy", "PUDA"}, {"team/web", "pat", "PU"}, {"team/web", "nick", ""}, {"team/web", "opal", "PUDA"}, {"team/web", "root", "PUDA"},
		{"team/web", "olga's pull token", "P"}, {"team/web", "nick's team token", ""}, {"team/web", "root's reader", "P"}, {"team/web", "called like a user", ""},
		{"team/other", "wendy", ""}, {"team/other", "dora", "PU"}, {"team/other", "olga's pull token", ""}, {"team/other", "nick", ""},
		{"team/site", "-", "P"}, {"team/site", "nick", "P"}, {"team/site", "dora", "PU"},
		{"team/mirror", "-", "P"}, {"team/mirror", "nick", "PU"}, {"team/mirror", "rita", "PUD"},
		{"open/x", "-", "P"}, {"open/x", "nick", "P"}, {"open/x", "olga", "PUDA"},
		{"open/secret", "-", ""}, {"open/secret", "nick", ""}, {"open/secret", "dora", "P"}, {"open/secret", "olga", "PUDA"},
		{"library/busybox", "-", "P"}, {"library/busybox", "root", "PUDA"}, {"library/busybox", "nick", "P"},
		{"inner/x", "-", ""}, {"inner/x", "nick", "P"},
		{"free/new", "-", ""}, {"free/new", "nick", "PU"}, {"free/app", "nick", "PU"}, {"free/app", "carl", "PUDA"}, {"free/closed", "nick", ""}, {"free/closed", "carl", "PUDA"},
		{"nick/x", "nick", "PUDA"}, {"nick/x", "carl", "PU"}, {"nick/mine", "nick", "PUDA"}, {"nick/mine", "carl", "P"}, {"nick", "nick", "PUDA"},
		{"single", "nick", "PU"}, {"Bad/Name", "root", ""}, {"a//b", "root", ""}, {"../x", "root", ""}, {"", "root", ""},
	} {
		got := ""
		for i, a := range Actions() {
			if example().Decide(who[c.who], c.repository, a).Allowed {
				got += string("PUDA"[i])
			}
		}
		if got != c.may {
			t.Errorf("%s may %q to %s, want %q", c.who, got, c.repository, c.may)
		}
	}
	if v := example().Decide(Subject{Name: "root", Admin: true}, "team/web", "erase"); v.Allowed {
		t.Error("an action that there is not")
	}
}

func TestCreation(t *testing.T) {
	for creation, want := range map[Creation]string{ByAnyUser: "new/x nick/x", ByOwnName: "nick/x", ByAdmins: "nick/x"} {
		r := Default()
		r.Site.Creation = creation
		var may []string
		for _, repo := range []string{"new/x", "nick/x"} {
			if r.Decide(Subject{Name: "nick"}, repo, Push).Allowed {
				may = append(may, repo)
			}
		}
		if got := strings.Join(may, " "); got != want {
			t.Errorf("%s: nick may push to %q, want %q", creation, got, want)
		}
	}
	r := Default()
	r.Organisations["nick"] = Organisation{Grants: Grants{User("olga"): Owner}}
	if r.Decide(Subject{Name: "nick"}, "nick/x", Push).Allowed {
		t.Error("an organisation that somebody has made belongs to its owners, whatever it is called")
	}
}

// The reasons are part of what people see: `berth registry access explain`.
func TestReasons(t *testing.T) {
	var b strings.Builder
	r := example()
	for _, c := range []struct {
		s    Subject
		repo string
		a    Action
	}{
		{Subject{}, "team/web", Push}, {Subject{}, "team/site", Pull}, {Subject{Name: "nick"}, "team/web", Push}, {Subject{Name: "dora", Groups: []string{"dev"}}, "team/web", Push},
		{Subject{Name: "dora", Groups: []string{"dev"}}, "team/web", Delete}, {Subject{Name: "rita"}, "team/web", Delete}, {Subject{Name: "opal", Groups: []string{"ops"}}, "x/y", Admin},
		{Subject{Name: "nick"}, "inner/x", Pull}, {Subject{Name: "nick"}, "free/new", Push}, {Subject{Name: "nick"}, "free/new", Delete}, {Subject{Name: "nick"}, "free/closed", Pull},
		{Subject{Name: "nick"}, "nick/x", Push}, {Subject{Name: "olga", Limit: &Limit{}}, "team/web", Pull}, {Subject{Name: "nick"}, "Bad", Pull},
	} {
		v := r.Decide(c.s, c.repo, c.a)
		name := c.s.Name
		if name == "" {
			name = "(nobody)"
		}
		fmt.Fprintf(&b, "%s %s %s: %v\n\t%s\n", name, c.a, c.repo, v.Allowed, v.Why)
	}
	for _, repo := range []string{"team/web", "free/new"} {
		fmt.Fprintf(&b, "\n%s\n\t%s\n", repo, strings.Join(r.Describe(repo), "\n\t"))
	}
	golden := filepath.Join("testdata", "reasons.golden")
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("reasons:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestVisibleAndManages(t *testing.T) {
	r := example()
	olga := Subject{Name: "olga", Limit: &Limit{Scopes: []Scope{{"other", []Action{Pull}}}}}
	if !r.Visible(olga, "team/web") || r.Visible(Subject{Name: "nick"}, "team/web") || !r.Visible(Subject{}, "team/site") {
		t.Error("visible")
	}
	if r.Manages(olga, "team") {
		t.Error("a token for a repository manages an organisation")
	}
	if olga.Limit = nil; !r.Manages(olga, "team") || r.Manages(olga, "library") || r.Manages(olga, "unmade") || r.Manages(Subject{Name: "rita"}, "team") {
		t.Error("manages")
	}
	if got := r.Named([]string{"x", "DEV", "ops"}); !slices.Equal(got, []string{"DEV", "ops"}) {
		t.Errorf("named groups %q", got)
	}
}

func TestParse(t *testing.T) {
	for in, want := range map[string]Principal{"alice": "user:alice", "user:alice": "user:alice", "@dev": "group:dev", "group:cn=dev,ou=x": "group:cn=dev,ou=x", "signed-in": SignedIn, "anyone": Anyone} {
		if got, err := ParsePrincipal(in); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "@", "user:", "host:x", "a\nb"} {
		if got, err := ParsePrincipal(in); err == nil {
			t.Errorf("%q is %q", in, got)
		}
	}
	for in, want := range map[string]Role{"pull": Reader, "push": Writer, "delete": Maintainer, "admin": Owner, "writer": Writer} {
		if got, err := ParseRole(in); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if _, err := ParseRole("god"); err == nil {
		t.Error("god is a role")
	}
	for _, name := range []string{"a", "a/b", "a.b/c_d/e__f/g--h"} {
		if err := CheckRepository(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "/", "a/", "/a", "A", "a b", "a..b", "a/../b", "a___b", strings.Repeat("a", 256), "a\n", "-a"} {
		if CheckRepository(name) == nil {
			t.Errorf("%q is a repository", name)
		}
	}
}

func openStore(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth", "rights.db")
	s := openStore(t, path)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.AddOrganisation("team", "the team", "", []Principal{User("olga")}))
	must(s.Grant(Target{Organisation: "team"}, Group("dev"), Writer))
	must(s.Grant(Target{Repository: "team/web"}, User("rob"), Reader))
	must(s.SetVisibility(Target{Repository: "team/site"}, Public))
	must(s.SetVisibility(Target{Organisation: "team"}, Internal))
	must(s.SetGroup("Release", []string{"rita", "rob", "rita"}))
	must(s.DescribeOrganisation("team", "another word"))
	must(s.SetSite(func(site *Site) error { site.Admins = []string{"user:root"}; return nil }))
	must(s.Claim(Subject{Name: "dora"}, "team/app"))
	must(s.Claim(Subject{Name: "other"}, "team/app"))
	must(s.Claim(Subject{}, "team/anonymous"))
	must(s.Claim(Subject{Name: "rob"}, "team/web"))
	if web := s.Rules().Repositories["team/web"]; web.By != "rob" || web.Grants[User("rob")] != Reader {
		t.Errorf("rights that were given beforehand stay: %+v", web)
	}
	before := s.Rules()
	for what, err := range map[string]error{
		"organisation twice":       s.AddOrganisation("team", "", "", nil),
		"organisation of no name":  s.AddOrganisation("Team/x", "", "", nil),
		"grant on none":            s.Grant(Target{Organisation: "none"}, SignedIn, Reader),
		"grant on nothing":         s.Grant(Target{}, SignedIn, Reader),
		"grant on two":             s.Grant(Target{"team", "team/web"}, SignedIn, Reader),
		"anyone writes":            s.Grant(Target{Repository: "team/web"}, Anyone, Writer),
		"revoke what is not":       s.Revoke(Target{Repository: "team/web"}, User("nobody")),
		"the last owner":           s.Revoke(Target{Organisation: "team"}, User("olga")),
		"group that is not":        s.RemoveGroup("none"),
		"organisation that is not": s.RemoveOrganisation("none"),
		"claim of a bad name":      s.Claim(Subject{Name: "x"}, "Bad"),
		"site refused":             s.SetSite(func(site *Site) error { site.Admins[0] = "user:evil"; return errors.New("no") }),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if !reflect.DeepEqual(before, s.Rules()) {
		t.Errorf("refused changes have changed something:\n%+v\n%+v", before, s.Rules())
	}
	r := s.Rules()
	if o := r.Organisations["team"]; o.Grants[Group("dev")] != Writer || o.Visibility != Internal || o.Description != "another word" {
		t.Errorf("%+v", o)
	}
	if app := r.Repositories["team/app"]; app.By != "dora" || len(app.Grants) != 1 || app.Grants[User("dora")] != Owner {
		t.Errorf("the first push makes the owner: %+v", app)
	}
	if _, known := r.Repositories["team/anonymous"]; known {
		t.Error("nobody owns a repository")
	}
	if ok, err := s.Allowed(t.Context(), Subject{Name: "rob"}, "team/web", Pull); !ok || err != nil {
		t.Error(ok, err)
	}

	if !reflect.DeepEqual(r.named, r.count()) {
		t.Errorf("groups that have rights: %v, counted %v", r.named, r.count())
	}
	must(s.Close())
	again := openStore(t, path)
	got := again.Rules()
	if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", r); a != b {
		t.Errorf("read again:\n%s\nwritten:\n%s", a, b)
	}
	s = again
	if _, err := Open(path); !fault.Is(err, fault.Conflict) {
		t.Errorf("opened twice: %v", err)
	}

	must(s.ForgetUser("rob"))
	must(s.ForgetUser("olga"))
	if text := fmt.Sprintf("%+v", s.Rules()); strings.Contains(text, "user:rob") || strings.Contains(text, "rita rob") || strings.Contains(text, "olga") {
		t.Errorf("users that are gone: %s", text)
	}
	must(s.Claim(Subject{Name: "next"}, "team/app"))
	if by := s.Rules().Repositories["team/app"].By; by != "dora" {
		t.Errorf("an emptied repository is taken over by %q", by)
	}
	must(s.Forget("team/app"))
	must(s.Forget("team/none"))
	must(s.Claim(Subject{Name: "next"}, "team/app"))
	if by := s.Rules().Repositories["team/app"].By; by != "next" {
		t.Errorf("first pushed by %q", by)
	}
	must(s.RemoveGroup("release"))
	must(s.RemoveOrganisation("team"))
	if r := s.Rules(); !reflect.DeepEqual(r.named, r.count()) || len(r.named) != 0 {
		t.Errorf("groups that have rights: %v, counted %v", r.named, r.count())
	}
}

// A snapshot does not change under whoever holds it.
func TestRulesAreAValue(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "rights.db"))
	if err := s.Grant(Target{Repository: "a/b"}, User("x"), Reader); err != nil {
		t.Fatal(err)
	}
	held := s.Rules()
	if err := s.Grant(Target{Repository: "a/b"}, User("x"), Owner); err != nil {
		t.Fatal(err)
	}
	if err := s.Grant(Target{Repository: "a/c"}, User("x"), Owner); err != nil {
		t.Fatal(err)
	}
	if len(held.Repositories) != 1 || held.Repositories["a/b"].Grants[User("x")] != Reader {
		t.Errorf("%+v", held.Repositories)
	}
}

// The process that writes is killed again and again: what it had answered is there, and nothing is half there.
func TestKilledWhileWriting(t *testing.T) {
	if path := os.Getenv("BERTH_TEST_RIGHTS"); path != "" {
		s, err := Open(path)
		for n := 0; err == nil; n++ {
			repo := fmt.Sprintf("team/r%d-%d", os.Getpid(), n)
			if err = s.Claim(Subject{Name: "alice"}, repo); err == nil {
				err = s.SetVisibility(Target{Repository: repo}, Public)
			}
			fmt.Println(repo)
		}
		fmt.Println(err)
		os.Exit(1)
	}
	path := filepath.Join(t.TempDir(), "rights.db")
	answered := map[string]bool{}
	for round := range 10 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWhileWriting$")
		cmd.Env = append(os.Environ(), "BERTH_TEST_RIGHTS="+path)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n < 2+round && lines.Scan(); n++ {
			answered[lines.Text()] = true
		}
		cmd.Process.Kill()
		for lines.Scan() {
			answered[lines.Text()] = true
		}
		cmd.Wait()
		s, err := Open(path)
		if err != nil {
			t.Fatalf("after a kill: %v", err)
		}
		repos := s.Rules().Repositories
		for name := range answered {
			if r, ok := repos[name]; !ok || r.By != "alice" || r.Visibility != Public {
				t.Fatalf("%s was answered and is %+v", name, r)
			}
		}
		s.Close()
	}
}
