package upstream

import (
	"cmp"
	"slices"
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

// Source is another registry whose repositories are fetched when they are asked for.
type Source struct {
	Name     string        `json:"name"`               // what people call it: hub
	Registry string        `json:"registry"`           // docker.io, quay.io, HOST:PORT; http://HOST:PORT for one without TLS
	Prefix   string        `json:"prefix,omitempty"`   // of the names here; "": the names are the same
	Only     []string      `json:"only,omitempty"`     // patterns of the source's repositories that may be fetched; none: all
	Fresh    door.Duration `json:"fresh,omitempty"`    // how long an answer about a tag is believed; 0: one minute
	Insecure bool          `json:"insecure,omitempty"` // plain HTTP or an unknown certificate will do
	Username string        `json:"username,omitempty"`
	Password string        `json:"password,omitempty"` // never shown
}

const defaultFresh = time.Minute

// check refuses a source that cannot be; it gives it in its plain form.
func (s Source) check() (Source, error) {
	if err := peer.CheckName(s.Name, "a mirror"); err != nil {
		return s, err
	}
	// Docker Hub is also known by an address with a path.
	address := strings.TrimSuffix(s.Registry, "/")
	if strings.TrimPrefix(address, "https://") == "index.docker.io/v1" {
		address = ref.DefaultDomain
	}
	host, insecure, err := peer.Address(address)
	if err != nil {
		return s, err
	}
	s.Registry, s.Insecure = host, s.Insecure || insecure
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		s.Registry = ref.DefaultDomain
	}
	s.Prefix = strings.Trim(s.Prefix, "/")
	if s.Prefix != "" && storage.CheckName(s.Prefix) != nil {
		return s, fault.New(fault.Invalid, "%q is no beginning of a repository's name", s.Prefix)
	}
	if s.Fresh < 0 {
		return s, fault.New(fault.Invalid, "fresh is a time that has passed, %v cannot", s.Fresh)
	}
	return s, pattern.Check(s.Only)
}

func (s Source) fresh() time.Duration { return cmp.Or(time.Duration(s.Fresh), defaultFresh) }

// remote gives the name at the source of a repository here; not ok when the source has nothing to do with it.
func (s Source) remote(repository string) (ref.Ref, bool) {
	path := repository
	if s.Prefix != "" {
		rest, ok := strings.CutPrefix(repository, s.Prefix+"/")
		if !ok {
			return ref.Ref{}, false
		}
		path = rest
	}
	if s.Registry == ref.DefaultDomain && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	if len(s.Only) > 0 && !pattern.Any(s.Only, path) {
		return ref.Ref{}, false
	}
	return ref.Ref{Domain: s.Registry, Path: path}, true
}

func (s Source) account() peer.Account {
	return peer.Account{Registry: s.Registry, Username: s.Username, Insecure: s.Insecure}
}

func (s Source) credentials() remote.Credentials {
	return remote.Credentials{Username: s.Username, Password: s.Password, ServerAddress: s.Registry}
}

// inOrder sorts sources as they are asked: longer prefixes first, then as they were given.
func inOrder(list []Source) []Source {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Source) int { return len(b.Prefix) - len(a.Prefix) })
	return list
}
