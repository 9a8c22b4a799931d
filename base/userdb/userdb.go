// Package userdb reads passwd(5) and group(5) texts and finds out as whom a process runs: the rule that turns "user:group" into
// numbers, supplementary groups and a home directory. It is pure; where the two files come from is the caller's business, and both
// are hostile input: they come from images.
package userdb

import (
	"bufio"
	"bytes"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"berth/base/fault"
)

// maxID is the greatest user or group number accepted, as by Docker.
const maxID = math.MaxInt32

// User is as whom a process runs.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary ones
	Home     string   // never empty
	Name     string   // "" when the number is in no passwd
}

type account struct {
	name     string
	uid, gid uint32
	home     string
}

type group struct {
	name    string
	gid     uint32
	members []string
}

// Lookup finds who spec is: "", "user", "uid", "user:group", "uid:gid". A number is never
// taken for a name and need not be in the files; a name must. Without a
// group in spec, the supplementary groups are those that list the user. add are further groups, names or numbers.
func Lookup(spec string, passwd, groups []byte, add []string) (User, error) {
	userArg, groupArg, _ := strings.Cut(spec, ":")
	groupArg, _, _ = strings.Cut(groupArg, ":") // what follows is nothing, as to Docker
	u := User{Home: "/"}
	a, err := findAccount(userArg, passwd)
	if err != nil {
		return u, err
	}
	u.UID, u.GID, u.Name = a.uid, a.gid, a.name
	if a.home != "" {
		u.Home = a.home
	}
	all := readGroups(groups)
	if groupArg != "" {
		if u.GID, err = findGroup(groupArg, all); err != nil {
			return u, err
		}
	} else if a.name != "" {
		for _, g := range all {
			if slices.Contains(g.members, a.name) {
				u.Groups = append(u.Groups, g.gid)
			}
		}
	}
	for _, want := range add {
		gid, err := findGroup(want, all)
		if err != nil {
			if _, numeric := number(want); numeric {
				return u, err
			}
			return u, fault.New(fault.Invalid, "Unable to find group %s: no matching entries in group file", want)
		}
		u.Groups = append(u.Groups, gid)
	}
	u.Groups = dedupe(u.Groups)
	return u, nil
}

// findAccount finds by number what is one, else by name; "" is user 0. An image could name a user 1000 who is root (CVE-2016-3697).
func findAccount(arg string, passwd []byte) (account, error) {
	n, numeric := number(arg)
	if arg == "" {
		n, numeric = 0, true
	}
	var byNumber *account
	for fields := range lines(passwd, 4) {
		uid, ok1 := number(fields[2])
		gid, ok2 := number(fields[3])
		if !ok1 || !ok2 || fields[0] == "" || uid > maxID || gid > maxID {
			continue
		}
		a := account{name: fields[0], uid: uint32(uid), gid: uint32(gid)}
		if len(fields) > 5 {
			a.home = fields[5]
		}
		if !numeric && a.name == arg {
			return a, nil
		}
		if numeric && uid == n && byNumber == nil {
			byNumber = &a
		}
	}
	switch {
	case byNumber != nil:
		return *byNumber, nil
	case !numeric:
		return account{}, fault.New(fault.Invalid, "unable to find user %s: no matching entries in passwd file", arg)
	case n > maxID:
		return account{}, fault.New(fault.Invalid, "uids and gids must be in range 0-%d", maxID)
	}
	return account{uid: uint32(n)}, nil
}

// findGroup takes a number as one, else it finds by name.
func findGroup(arg string, all []group) (uint32, error) {
	n, numeric := number(arg)
	for _, g := range all {
		if !numeric && g.name == arg {
			return g.gid, nil
		}
	}
	switch {
	case !numeric:
		return 0, fault.New(fault.Invalid, "unable to find group %s: no matching entries in group file", arg)
	case n > maxID:
		return 0, fault.New(fault.Invalid, "uids and gids must be in range 0-%d", maxID)
	}
	return uint32(n), nil
}

func readGroups(b []byte) (all []group) {
	for f := range lines(b, 3) {
		gid, ok := number(f[2])
		if !ok || f[0] == "" || gid > maxID {
			continue
		}
		g := group{name: f[0], gid: uint32(gid)}
		if len(f) > 3 {
			g.members = strings.Split(f[3], ",")
		}
		all = append(all, g)
	}
	return all
}

// lines gives the fields of each line that has at least min of them; comments and NIS markers are left out.
func lines(b []byte, min int) func(func([]string) bool) {
	return func(yield func([]string) bool) {
		s := bufio.NewScanner(bytes.NewReader(b))
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			line := strings.TrimSpace(s.Text())
			if line == "" || line[0] == '#' || line[0] == '+' || line[0] == '-' {
				continue
			}
			if f := strings.Split(line, ":"); len(f) >= min && !yield(f) {
				return
			}
		}
	}
}

// number reads an id as Docker does; what is below 0 or beyond all bounds is greater than maxID.
func number(s string) (uint64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) || n < 0 {
		return math.MaxUint64, true
	}
	return uint64(n), err == nil
}

func dedupe(ids []uint32) (out []uint32) {
	for _, id := range ids {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}
