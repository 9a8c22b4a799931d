package userns

import (
	"os"
	"os/exec"
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/kernel/idmap"
)

// Config is what the daemon says of user namespaces. With the zero value no container has one unless it says so, and none can.
type Config struct {
	Default  Kind          // of containers that say nothing: Host, Auto, or Default where all have Remap
	Remap    idmap.Pair    // the mapping of all; Default only
	Users    []idmap.Block // of the pool
	Groups   []idmap.Block
	HostToo  bool   // a container that cannot have a user namespace of its own gets the engine's, instead of an error
	RemapFor string // the user whose subordinate ids Remap has, for people
}

// Remaps says whether containers have a user namespace unless they say otherwise.
func (c Config) Remaps() bool {
	return c.Default == Auto || c.Default == Default && len(c.Remap.Users) > 0
}

// Settings are the texts that a Config is read from, and the files that they speak of.
type Settings struct {
	Remap   string // --userns-remap: "", "default", "auto", "USER[:GROUP]", "UID[:GID]"
	Pool    string // --userns-pool: "", "START:SIZE"
	HostToo bool   // --userns-fallback=host

	Passwd, Subuid, Subgid string // "": those of /etc
	// Run runs a program that adds a user, for "default"; nil: as it is on the machine.
	Run func(name string, args ...string) error
}

// remapUser is the user whose ids --userns-remap=default takes; Docker's.
const remapUser = "dockremap"

// poolUsers own the ids of --userns=auto where /etc/subuid has them: ours, and the one that other engines take.
var poolUsers = [...]string{"berth", "containers"}

// highIDs is the pool where nobody says anything: ids that no distribution and no directory service hands out. Those of
// the first block, which are enough for 4095 containers, are numbers also for programs that read ids with a sign; the
// second is nearly the upper half of all.
var highIDs = []idmap.Block{{Start: 7 << 28, Size: 1<<28 - 1<<16}, {Start: 1 << 31, Size: 7 << 28}}

// Read makes a Config. A user "root" means no remapping, as in Docker.
func Read(s Settings) (c Config, err error) {
	s.fill()
	c.Default, c.HostToo = Host, s.HostToo
	switch {
	case s.Remap == "auto":
		c.Default = Auto
	case s.Remap != "":
		if err := s.remap(&c); err != nil {
			return c, err
		}
	}
	c.Users, c.Groups, err = s.pool()
	return c, err
}

func (s *Settings) fill() {
	for to, path := range map[*string]string{&s.Passwd: "/etc/passwd", &s.Subuid: "/etc/subuid", &s.Subgid: "/etc/subgid"} {
		if *to == "" {
			*to = path
		}
	}
	if s.Run == nil {
		s.Run = run
	}
}

// remap reads --userns-remap. The group is accepted and, as in Docker, its name must only have the form: subordinate
// groups stand under the user's name.
func (s *Settings) remap(c *Config) error {
	user, group, hasGroup := strings.Cut(s.Remap, ":")
	if user == "" || hasGroup && group == "" || strings.Contains(group, ":") {
		return fault.New(fault.Invalid, "invalid User/Group specification in --userns-remap: %q", s.Remap)
	}
	if user == "default" {
		if err := s.makeUser(); err != nil {
			return err
		}
		user = remapUser
	}
	name, uid, err := s.lookup(user)
	if err != nil {
		return err
	}
	if uid == 0 {
		return nil
	}
	users, err := idmap.Subordinate(s.Subuid, name, uid)
	if err != nil {
		return fault.In(err, "Can't create ID mappings")
	}
	groups, err := idmap.Subordinate(s.Subgid, name, uid)
	if err != nil {
		return fault.In(err, "Can't create ID mappings")
	}
	c.Default, c.RemapFor = Default, name
	c.Remap = idmap.Pair{Users: idmap.Lines(users), Groups: idmap.Lines(groups)}
	return fault.In(c.Remap.Check(), "Can't create ID mappings")
}

// lookup finds a user by name or number. The one of "default" need not exist where its ids do.
func (s *Settings) lookup(user string) (name string, uid int, err error) {
	text, err := os.ReadFile(s.Passwd)
	if err != nil {
		return "", -1, fault.Wrap(fault.Internal, err, "looking for user %q", user)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(line, ":")
		if len(f) < 3 || f[0] != user && f[2] != user {
			continue
		}
		if n, err := strconv.Atoi(f[2]); err == nil {
			return f[0], n, nil
		}
	}
	if user == remapUser {
		return user, -1, nil
	}
	if _, err := strconv.Atoi(user); err == nil {
		return "", -1, fault.New(fault.NotFound, "Uid %s has no entry in %s", user, s.Passwd)
	}
	return "", -1, fault.New(fault.NotFound, "Error during %q user lookup: it has no entry in %s", user, s.Passwd)
}

// makeUser sees that the user of --userns-remap=default has subordinate ids, as dockerd does: nothing is changed where
// it has.
func (s *Settings) makeUser() error {
	_, uerr := idmap.Subordinate(s.Subuid, remapUser, -1)
	_, gerr := idmap.Subordinate(s.Subgid, remapUser, -1)
	if uerr == nil && gerr == nil {
		return nil
	}
	if _, uid, _ := s.lookup(remapUser); uid < 0 {
		if err := s.Run("useradd", "--system", "--no-create-home", "--shell", "/bin/false", remapUser); err != nil {
			return fault.In(err, "make the user %s for --userns-remap=default (or add the lines %s:100000:65536 to %s and %s yourself)", remapUser, remapUser, s.Subuid, s.Subgid)
		}
	}
	for _, x := range []struct {
		err        error
		file, flag string
	}{{uerr, s.Subuid, "--add-subuids"}, {gerr, s.Subgid, "--add-subgids"}} {
		if x.err == nil {
			continue
		}
		all, err := everybodys(x.file)
		if err != nil {
			return err
		}
		free := subtract([]idmap.Block{{Start: 100000, Size: 1 << 30}}, all)
		for len(free) > 0 && free[0].Size < DefaultSize {
			free = free[1:]
		}
		if len(free) == 0 {
			return fault.New(fault.Conflict, "%s has no room for %d more ids", x.file, DefaultSize)
		}
		span := strconv.FormatUint(uint64(free[0].Start), 10) + "-" + strconv.FormatUint(uint64(free[0].Start+DefaultSize-1), 10)
		if err := s.Run("usermod", x.flag, span, remapUser); err != nil {
			return fault.In(err, "give user %s subordinate ids", remapUser)
		}
	}
	return nil
}

// pool finds the ids for --userns=auto: those that the daemon is told, else those of users made for it, else high ones
// that nobody has.
func (s *Settings) pool() (users, groups []idmap.Block, err error) {
	if s.Pool != "" {
		b, err := parsePool(s.Pool)
		return []idmap.Block{b}, []idmap.Block{b}, err
	}
	for _, name := range poolUsers {
		users, err1 := idmap.Subordinate(s.Subuid, name, -1)
		groups, err2 := idmap.Subordinate(s.Subgid, name, -1)
		if err1 == nil && err2 == nil {
			return users, groups, nil
		}
	}
	for _, x := range []struct {
		file string
		to   *[]idmap.Block
	}{{s.Subuid, &users}, {s.Subgid, &groups}} {
		all, err := everybodys(x.file)
		if err != nil {
			return nil, nil, err
		}
		*x.to = subtract(highIDs, all)
	}
	return users, groups, nil
}

// parsePool reads START:SIZE.
func parsePool(text string) (b idmap.Block, err error) {
	start, size, ok := strings.Cut(text, ":")
	from, err1 := strconv.ParseUint(start, 10, 32)
	n, err2 := strconv.ParseUint(size, 10, 32)
	if !ok || err1 != nil || err2 != nil || n == 0 || from+n > 1<<32-1 {
		return b, fault.New(fault.Invalid, "userns-pool %q: give START:SIZE, such as 2147483648:1048576", text)
	}
	if from < 1000 {
		return b, fault.New(fault.Invalid, "userns-pool %q: ids below 1000 are the system's own", text)
	}
	return idmap.Block{Start: uint32(from), Size: uint32(n)}, nil
}

// everybodys gives all blocks of a subordinate id file, merged. Lines that mean nothing are passed over.
func everybodys(file string) (all []idmap.Block, err error) {
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return nil, fault.Wrap(fault.Internal, err, "read subordinate ids")
	}
	for line := range strings.Lines(string(text)) {
		name, _, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		if blocks, err := idmap.ParseSubordinate(line, name, -1); err == nil {
			all = append(all, blocks...)
		}
	}
	return merge(all), nil
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "%s: %s", name, strings.TrimSpace(string(out)))
	}
	return nil
}
