package user

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"berth/auth"
	"berth/base/fault"
)

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "auth", "accounts.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func ptr[T any](v T) *T { return &v }

func TestAccounts(t *testing.T) {
	s := openStore(t)
	if empty, err := s.Empty(); err != nil || !empty {
		t.Fatal(empty, err)
	}
	if _, err := s.Add("alice", "one", true); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"twice":          second(s.Add("alice", "x", false)),
		"colon":          second(s.Add("a:b", "x", false)),
		"empty":          second(s.Add("", "x", false)),
		"local key":      second(s.Add("@local", "x", false)),
		"no password":    second(s.Add("bob", "", false)),
		"long password":  second(s.Add("bob", strings.Repeat("x", 73), false)),
		"change of none": second(s.Change("nobody", Change{})),
		"remove of none": s.Remove("nobody"),
	} {
		if k := fault.KindOf(err); k != fault.Invalid && k != fault.Conflict && k != fault.NotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
	check := func(name, password string, want error) {
		t.Helper()
		if _, err := s.Password(t.Context(), name, password); !errors.Is(err, want) {
			t.Errorf("%s/%s: %v, want %v", name, password, err, want)
		}
	}
	check("alice", "one", nil)
	check("alice", "two", auth.ErrPassword)
	check("alice", "", auth.ErrPassword)
	check("bob", "one", auth.ErrNoUser)
	u, err := s.Lookup(t.Context(), "alice")
	if err != nil || !u.Admin {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := s.Change("alice", Change{Password: ptr("two"), Admin: ptr(false)}); err != nil {
		t.Fatal(err)
	}
	check("alice", "one", auth.ErrPassword)
	check("alice", "two", nil)
	if now, _ := s.Lookup(t.Context(), "alice"); now.Admin || now.Stamp == u.Stamp {
		t.Errorf("%+v", now)
	}
	if _, err := s.Change("alice", Change{Closed: ptr(true)}); err != nil {
		t.Fatal(err)
	}
	check("alice", "two", auth.ErrPassword)
	if _, err := s.Lookup(t.Context(), "alice"); !errors.Is(err, auth.ErrPassword) {
		t.Errorf("a closed account is known, so that no other source answers for its name: %v", err)
	}
	if err := s.Remove("alice"); err != nil {
		t.Fatal(err)
	}
	check("alice", "two", auth.ErrNoUser)
}

func second[T any](_ T, err error) error { return err }

func TestPersonalTokens(t *testing.T) {
	s := openStore(t)
	made, text, err := s.AddToken(Token{User: "alice", Note: "ci", Actions: []string{"pull"}})
	if err != nil || !strings.HasPrefix(text, Prefix) {
		t.Fatal(text, err)
	}
	got, err := s.CheckToken(text)
	if err != nil || got.ID != made.ID || len(got.Actions) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	for what, err := range map[string]error{
		"changed":    second(s.CheckToken(text + "x")),
		"its id":     second(s.CheckToken(made.ID)),
		"its prefix": second(s.CheckToken(Prefix)),
	} {
		if !errors.Is(err, auth.ErrPassword) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, old, err := s.AddToken(Token{User: "alice", Expires: time.Now().Add(-time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CheckToken(old); err == nil {
		t.Error("an expired token is good")
	}
	if n, err := s.Sweep(time.Now()); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if err := s.RemoveToken("bob", made.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("bob revokes alice's token: %v", err)
	}
	if err := s.RemoveToken("alice", made.ID); err != nil {
		t.Error(err)
	}
	if _, err := s.CheckToken(text); err == nil {
		t.Error("a revoked token is good")
	}
	raw, err := os.ReadFile(s.db.Path())
	if err != nil || strings.Contains(string(raw), strings.TrimPrefix(text, Prefix)) {
		t.Error("the secret stands in the database", err)
	}
	for range tokensPerUser {
		if _, _, err = s.AddToken(Token{User: "bob"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.AddToken(Token{User: "bob"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("no end of tokens: %v", err)
	}
}

func TestRefreshTokens(t *testing.T) {
	s := openStore(t)
	if _, err := s.Add("alice", "one", false); err != nil {
		t.Fatal(err)
	}
	add := func(user, token string, life time.Duration) string {
		t.Helper()
		text, err := s.AddRefresh(Refresh{User: auth.User{Name: user}, Service: "berth", Token: token, Expires: time.Now().Add(life)})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	good := func(text string) bool {
		_, _, err := s.CheckRefresh("berth", text)
		if err != nil && !fault.Is(err, fault.Unauthorized) {
			t.Error(err)
		}
		return err == nil
	}
	text := add("alice", "", time.Hour)
	if !good(text) || good(text+"x") || good("") {
		t.Error("only the token itself is good")
	}
	if _, _, err := s.CheckRefresh("other", text); err == nil {
		t.Error("good for another service")
	}
	if good(add("alice", "", -time.Second)) {
		t.Error("an expired one is good")
	}
	if _, err := s.Change("alice", Change{Password: ptr("two")}); err != nil {
		t.Fatal(err)
	}
	if good(text) {
		t.Error("survives a change of the password")
	}
	text = add("alice", "", time.Hour)
	if n, err := s.SignOut("alice"); n != 1 || err != nil || good(text) {
		t.Errorf("signed out: %d, %v", n, err)
	}
	personal, _, err := s.AddToken(Token{User: "alice", Actions: []string{"pull"}})
	if err != nil {
		t.Fatal(err)
	}
	text = add("alice", personal.ID, time.Hour)
	if _, held, err := s.CheckRefresh("berth", text); err != nil || held == nil || held.Actions[0] != "pull" {
		t.Errorf("keeps what the personal token is limited to: %+v, %v", held, err)
	}
	if err := s.RemoveToken("", personal.ID); err != nil || good(text) {
		t.Errorf("survives the token that it was got with (%v)", err)
	}
	first := add("bob", "", time.Hour)
	for range tokensPerUser {
		time.Sleep(time.Microsecond)
		add("bob", "", time.Hour)
	}
	if good(first) {
		t.Error("the oldest of too many stays")
	}
}

func TestOneProcess(t *testing.T) {
	s := openStore(t)
	if _, err := Open(s.db.Path()); !fault.Is(err, fault.Conflict) {
		t.Errorf("opened twice: %v", err)
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "accounts.db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyVersion, []byte("99")) })
	s.Close()
	if _, err := Open(path); !fault.Is(err, fault.Conflict) {
		t.Errorf("a newer version: %v", err)
	}
}

// The process that writes is killed again and again; what it had answered is there.
func TestKilledWhileWriting(t *testing.T) {
	if path := os.Getenv("BERTH_TEST_ACCOUNTS"); path != "" {
		writeForever(path)
		return
	}
	path := filepath.Join(t.TempDir(), "accounts.db")
	done := 0
	for round := range 10 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWhileWriting$")
		cmd.Env = append(os.Environ(), "BERTH_TEST_ACCOUNTS="+path)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n < 3+round && lines.Scan(); n++ {
			if done, err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
		}
		cmd.Process.Kill()
		for lines.Scan() { // what was answered before the signal came
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				done = n
			}
		}
		cmd.Wait()
		s, err := Open(path)
		if err != nil {
			t.Fatalf("after a kill: %v", err)
		}
		all, err := s.Tokens("alice")
		if err != nil || len(all) < done || len(all) > done+1 {
			t.Fatalf("%d tokens were made, %d are there (%v)", done, len(all), err)
		}
		s.Close()
		done = len(all)
	}
}

// writeForever makes tokens and tells their number after each. It begins anew before there are too many.
func writeForever(path string) {
	s, err := Open(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	all, _ := s.Tokens("alice")
	for n := len(all) + 1; ; n++ {
		if _, _, err := s.AddToken(Token{User: "alice"}); err != nil {
			select {} // full: wait for the end
		}
		fmt.Println(n)
	}
}
