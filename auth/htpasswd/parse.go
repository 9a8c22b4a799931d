package htpasswd

import (
	"fmt"
	"strings"

	"berth/auth"
	"berth/auth/secret"
)

// Problem is a line of a password file that does not do what its writer thinks.
type Problem struct {
	Line int    // from 1
	User string // "" when the line has none
	Text string // what is wrong and what to do
}

// String gives the problem as it is printed.
func (p Problem) String() string { return fmt.Sprintf("line %d: %s", p.Line, p.Text) }

// Table is a password file as a value. It is never changed.
type Table struct {
	Problems []Problem

	hashes map[string]string // by user
	cost   int               // of the dearest hash: what an unknown name costs
}

// Parse reads a password file. It never fails: what cannot be used is a Problem.
func Parse(text []byte) Table {
	t := Table{hashes: map[string]string{}, cost: secret.Cheap}
	seen := map[string]int{}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(strings.TrimSuffix(line, "\r"))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		problem := func(user, format string, args ...any) {
			t.Problems = append(t.Problems, Problem{i + 1, user, fmt.Sprintf(format, args...)})
		}
		user, hash, ok := strings.Cut(line, ":")
		if !ok || auth.Check(user, "x") != nil {
			problem("", "is not NAME:HASH and is ignored")
			continue
		}
		hash, _, _ = strings.Cut(hash, ":") // further fields are comments to Apache
		if before := seen[user]; before != 0 {
			problem(user, "user %q stands on line %d already, which counts; this one is ignored", user, before)
			continue
		}
		seen[user] = i + 1
		kind := hashKind(hash)
		if kind != "bcrypt" {
			problem(user, "user %q cannot sign in: the hash is %s, only bcrypt is accepted (htpasswd -B)", user, kind)
			continue
		}
		cost, err := secret.Cost(hash)
		if err != nil {
			problem(user, "user %q cannot sign in: %v", user, err)
			continue
		}
		if cost < secret.Cheap {
			problem(user, "the password of user %q is cheap to guess from its hash: bcrypt of cost %d, better is %d (htpasswd -B -C %d)", user, cost, secret.Cheap, secret.Cheap)
		}
		t.hashes[user] = hash
		t.cost = max(t.cost, cost)
	}
	if len(t.hashes) > 0 {
		t.cost = dearest(t.hashes)
	}
	return t
}

// dearest gives the highest cost in use, so that an unknown name takes as long as the slowest known one.
func dearest(hashes map[string]string) int {
	high := 0
	for _, h := range hashes {
		c, _ := secret.Cost(h)
		high = max(high, c)
	}
	return high
}

// hashKind names what htpasswd(1) could have written.
func hashKind(hash string) string {
	switch {
	case strings.HasPrefix(hash, "$2a$"), strings.HasPrefix(hash, "$2b$"), strings.HasPrefix(hash, "$2y$"):
		return "bcrypt"
	case strings.HasPrefix(hash, "$apr1$"):
		return "Apache's MD5"
	case strings.HasPrefix(hash, "{SHA}"):
		return "unsalted SHA-1"
	case strings.HasPrefix(hash, "$5$"), strings.HasPrefix(hash, "$6$"):
		return "SHA crypt"
	case strings.HasPrefix(hash, "$1$"):
		return "MD5 crypt"
	case hash == "":
		return "empty"
	}
	return "crypt or plain text"
}
