package replicate

import (
	"strings"
	"time"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image/remote"
	"berth/registry/door"
	"berth/registry/pattern"
	"berth/registry/peer"
	"berth/registry/storage"
)

// Rule says what goes where.
type Rule struct {
	Name         string        `json:"name"`
	Registry     string        `json:"registry"`           // HOST[:PORT]; http://HOST:PORT for one without TLS
	Repositories []string      `json:"repositories"`       // patterns of names here
	Tags         []string      `json:"tags,omitempty"`     // patterns; none: all
	Prefix       string        `json:"prefix,omitempty"`   // before the names at the target
	Deletes      bool          `json:"deletes,omitempty"`  // a tag that is deleted here is deleted there; a plan deletes what is not here
	Every        door.Duration `json:"every,omitempty"`    // between comparisons of everything; 0: only after pushes and by hand
	Paused       bool          `json:"paused,omitempty"`   // jobs wait
	Insecure     bool          `json:"insecure,omitempty"` // plain HTTP or an unknown certificate will do
	Username     string        `json:"username,omitempty"`
	Password     string        `json:"password,omitempty"` // never shown
}

const leastEvery = time.Minute

// check refuses a rule that cannot be; it gives it in its plain form.
func (r Rule) check() (Rule, error) {
	if err := peer.CheckName(r.Name, "a replication"); err != nil {
		return r, err
	}
	host, insecure, err := peer.Address(r.Registry)
	if err != nil {
		return r, err
	}
	r.Registry, r.Insecure = host, r.Insecure || insecure
	if len(r.Repositories) == 0 {
		return r, fault.New(fault.Invalid, "a replication names repositories: ** is all")
	}
	r.Prefix = strings.Trim(r.Prefix, "/")
	if r.Prefix != "" && storage.CheckName(r.Prefix) != nil {
		return r, fault.New(fault.Invalid, "%q is no beginning of a repository's name", r.Prefix)
	}
	if r.Every != 0 && time.Duration(r.Every) < leastEvery {
		return r, fault.New(fault.Invalid, "every %v is too often: at least %v", r.Every, leastEvery)
	}
	if err := pattern.Check(r.Repositories); err != nil {
		return r, err
	}
	return r, pattern.Check(r.Tags)
}

// covers reports whether the rule is about a repository.
func (r Rule) covers(repository string) bool { return pattern.Any(r.Repositories, repository) }

// wants reports whether the rule is about a tag.
func (r Rule) wants(tag string) bool { return len(r.Tags) == 0 || pattern.Any(r.Tags, tag) }

// target gives the name of a repository at the target.
func (r Rule) target(repository string) ref.Ref {
	path := repository
	if r.Prefix != "" {
		path = r.Prefix + "/" + repository
	}
	return ref.Ref{Domain: r.Registry, Path: path}
}

func (r Rule) account() peer.Account {
	return peer.Account{Registry: r.Registry, Username: r.Username, Insecure: r.Insecure}
}

func (r Rule) credentials() remote.Credentials {
	return remote.Credentials{Username: r.Username, Password: r.Password, ServerAddress: r.Registry}
}
