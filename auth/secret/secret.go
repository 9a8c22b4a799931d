// Package secret keeps secrets so that they cannot be read back: passwords as bcrypt hashes, and random tokens, which nobody can guess,
// as plain SHA-256.
//
// A comparison costs processor time by design, which anybody may ask for by trying to sign in: at most one per processor runs at
// a time, the others wait for as long as their context allows, and hashes that cost more than MaxCost are refused. The
// package never logs and never stores anything.
package secret

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"runtime"

	"golang.org/x/crypto/bcrypt"

	"berth/base/fault"
)

const (
	// Cheap is the lowest bcrypt cost that is not called cheap, and the cost of new hashes: about 70 ms.
	Cheap = 10
	// MaxCost is the highest bcrypt cost that is computed: some two seconds.
	MaxCost = 15
	// MaxPassword is the number of bytes of a password that bcrypt looks at. Longer ones are not set.
	MaxPassword = 72
)

// turns bounds the comparisons that run at a time. It is a channel and not a value of each user of the package because
// what it guards, the machine's processors, is shared by all of them; it holds nothing.
var turns = make(chan struct{}, runtime.NumCPU())

// Hash makes a hash of a password. Errors are Invalid.
func Hash(password string) (string, error) {
	switch {
	case password == "":
		return "", fault.New(fault.Invalid, "the password is empty")
	case len(password) > MaxPassword:
		return "", fault.New(fault.Invalid, "the password is longer than %d bytes, which is all that bcrypt looks at", MaxPassword)
	}
	h, err := bcrypt.GenerateFromPassword([]byte(password), Cheap)
	return string(h), err
}

// Match compares a password with a bcrypt hash.
func Match(ctx context.Context, hash, password string) (bool, error) {
	if _, err := Cost(hash); err != nil {
		return false, nil
	}
	select {
	case turns <- struct{}{}:
		defer func() { <-turns }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	if err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		return false, nil // a damaged hash matches nothing
	}
	return err == nil, nil
}

// Waste takes as long as Match does with a hash of the cost, so that an answer's time does not tell which names exist.
func Waste(ctx context.Context, password string, cost int) error {
	_, err := Match(ctx, decoy(cost), password)
	return err
}

// decoy is a hash that nobody has the password of.
func decoy(cost int) string {
	cost = min(max(cost, bcrypt.MinCost), MaxCost)
	return "$2b$" + string([]byte{byte('0' + cost/10), byte('0' + cost%10)}) + "$CGuDIAvNkvqD0.PRW8b2peDLN4zVBo3HEi8s4rZIBbFOrdFYvAqPW"
}

// Cost gives the cost of a bcrypt hash. Errors are Invalid: the hash is damaged, or would take too long.
func Cost(hash string) (int, error) {
	cost, err := bcrypt.Cost([]byte(hash))
	switch {
	case err != nil:
		return 0, fault.New(fault.Invalid, "the bcrypt hash is damaged")
	case cost > MaxCost:
		return 0, fault.New(fault.Invalid, "the bcrypt hash has cost %d, the highest that is computed is %d", cost, MaxCost)
	case len(hash) != 60:
		return 0, fault.New(fault.Invalid, "the bcrypt hash is damaged")
	}
	return cost, nil
}

// Token makes a random token of 256 bits, in letters that fit a URL and a header.
func Token() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// ID makes a short random name for something that people have to type.
func ID() string {
	var b [6]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Fingerprint gives the SHA-256 of a random token, which is what is kept of it. Passwords are too short for it: Hash is
// for them.
func Fingerprint(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
