package htpasswd

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"berth/auth"
	"berth/base/fault"
)

func hash(t testing.TB, password, version string) string {
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return "$" + version + string(h[3:])
}

func TestParse(t *testing.T) {
	good := hash(t, "x", "2y")
	text := strings.Join([]string{
		"# users",
		"alice:" + good,
		"",
		"bob:$apr1$abc$def",
		"carol:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=",
		"dave:plain",
		"alice:" + hash(t, "y", "2b"),
		"no colon",
		":" + good,
		"erin:$2y$31$" + good[7:],
		"frank:$2y$05$short",
		"gina:" + good + ":Gina's comment\r",
		"hugo:",
	}, "\n")
	table := Parse([]byte(text))
	var got []string
	for _, p := range table.Problems {
		got = append(got, p.String())
	}
	cheap := func(line int, user string) string {
		return fmt.Sprintf("line %d: the password of user %q is cheap to guess from its hash: bcrypt of cost 4, better is 10 (htpasswd -B -C 10)", line, user)
	}
	want := []string{
		cheap(2, "alice"),
		`line 4: user "bob" cannot sign in: the hash is Apache's MD5, only bcrypt is accepted (htpasswd -B)`,
		`line 5: user "carol" cannot sign in: the hash is unsalted SHA-1, only bcrypt is accepted (htpasswd -B)`,
		`line 6: user "dave" cannot sign in: the hash is crypt or plain text, only bcrypt is accepted (htpasswd -B)`,
		`line 7: user "alice" stands on line 2 already, which counts; this one is ignored`,
		`line 8: is not NAME:HASH and is ignored`,
		`line 9: is not NAME:HASH and is ignored`,
		`line 10: user "erin" cannot sign in: the bcrypt hash has cost 31, the highest that is computed is 15`,
		`line 11: user "frank" cannot sign in: the bcrypt hash is damaged`,
		cheap(12, "gina"),
		`line 13: user "hugo" cannot sign in: the hash is empty, only bcrypt is accepted (htpasswd -B)`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("problems:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(table.hashes) != 2 || table.hashes["alice"] != good || table.hashes["gina"] != good {
		t.Errorf("users %v", table.hashes)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "htpasswd")
	write := func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(path, slog.New(slog.DiscardHandler)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no file: %v", err)
	}
	write("alice:"+hash(t, "one", "2y"), "bob:"+hash(t, "two", "2a"), "carol:$apr1$x$y", "dave:secret")
	f, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	check := func(user, password string, want error) {
		t.Helper()
		u, err := f.Password(t.Context(), user, password)
		if !errors.Is(err, want) || err == nil && (u.Name != user || u.Stamp == "") {
			t.Errorf("%s/%s: %+v, %v; want %v", user, password, u, err, want)
		}
	}
	check("alice", "one", nil)
	check("bob", "two", nil)
	check("alice", "two", auth.ErrPassword)
	check("alice", "", auth.ErrPassword)
	check("Alice", "one", auth.ErrNoUser)
	check("carol", "x", auth.ErrNoUser)
	check("dave", "secret", auth.ErrNoUser)
	check("nobody", "x", auth.ErrNoUser)
	before, _ := f.Lookup(t.Context(), "alice")

	// In place and of the same length, as htpasswd(1) does, within one tick of the file system's clock.
	write("alice:"+hash(t, "new", "2y"), "bob:"+hash(t, "two", "2a"), "carol:$apr1$x$y", "dave:secret")
	check("alice", "new", nil)
	check("alice", "one", auth.ErrPassword)
	after, err := f.Lookup(t.Context(), "alice")
	if err != nil || before.Stamp == after.Stamp {
		t.Errorf("the stamp stays %s over a change of the password (%v)", after.Stamp, err)
	}
	// Old enough to be believed, then changed by rename.
	old := time.Now().Add(-time.Hour)
	os.Chtimes(path, old, old)
	check("alice", "new", nil)
	next := path + ".next"
	if err := os.WriteFile(next, []byte("bob:"+hash(t, "two", "2a")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Chtimes(next, old, old)
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	check("alice", "new", auth.ErrNoUser)
	check("bob", "two", nil)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Password(t.Context(), "bob", "two"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without its file nobody is let in, and nobody is called wrong: %v", err)
	}
}

// Apache's own program writes what is read here.
func TestApache(t *testing.T) {
	if _, err := exec.LookPath("htpasswd"); err != nil {
		t.Skip("needs htpasswd: Debian package apache2-utils")
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	for _, args := range [][]string{{"-Bbc", path, "alice", "päss wörd"}, {"-Bb", path, "bob", "two"}, {"-mb", path, "weak", "three"}} {
		if out, err := exec.Command("htpasswd", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	f, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{"alice", "päss wörd"}, {"bob", "two"}} {
		if _, err := f.Password(t.Context(), c[0], c[1]); err != nil {
			t.Errorf("%s: %v", c[0], err)
		}
	}
	if problems, _ := f.Problems(); len(problems) != 3 { // two of cost 5, one MD5
		t.Errorf("%v", problems)
	}
}

// A name that the file has and one that it has not cost the same: that of a bcrypt.
func TestUnknownNamesCostTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "htpasswd")
	h, _ := bcrypt.GenerateFromPassword([]byte("x"), 9)
	if err := os.WriteFile(path, []byte("alice:"+string(h)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	fastest := func(user string) time.Duration {
		best := time.Hour
		for range 7 {
			start := time.Now()
			f.Password(t.Context(), user, "wrong")
			best = min(best, time.Since(start))
		}
		return best
	}
	known, unknown := fastest("alice"), fastest("nobody")
	if unknown < known/4 || unknown > known*4 {
		t.Errorf("alice costs %v, nobody %v", known, unknown)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("alice:$2y$05$abc\n# x\n:\nb:c:d")
	f.Fuzz(func(t *testing.T, text string) {
		for user := range Parse([]byte(text)).hashes {
			if auth.Check(user, "x") != nil || strings.Contains(user, ":") {
				t.Errorf("a user called %q", user)
			}
		}
	})
}
