package request

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
)

// A Secret is a value that steps may ask for by id while they run; it never enters the result.
type Secret struct {
	ID   string
	Path string // a file
	Env  string // a variable of our environment; with neither, ID names one, else a file
}

// ParseSecrets reads --secret texts.
func ParseSecrets(values []string) ([]Secret, error) {
	var all []Secret
	for _, text := range values {
		if text == "" {
			continue
		}
		var s Secret
		kind := ""
		err := pairs(text, func(k, v string, bare bool) error {
			key := strings.ToLower(k)
			if bare {
				return fmt.Errorf("invalid field '%s' must be a key=value pair", k)
			}
			switch key {
			case "type":
				if v != "file" && v != "env" {
					return fmt.Errorf("unsupported secret type %q", v)
				}
				kind = v
			case "id":
				s.ID = v
			case "source", "src":
				s.Path = v
			case "env":
				s.Env = v
			default:
				return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, k, v)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if kind == "env" && s.Env == "" {
			s.Env, s.Path = s.Path, ""
		}
		all = append(all, s)
	}
	return all, nil
}

// String is the text that ParseSecrets reads.
func (s Secret) String() string {
	fields := []string{"id=" + s.ID}
	if s.Path != "" {
		fields = append(fields, "src="+s.Path)
	}
	if s.Env != "" {
		fields = append(fields, "env="+s.Env)
	}
	return Join(fields, nil)
}

func secretProvider(secrets []Secret) (session.Attachable, error) {
	sources := make([]secretsprovider.Source, 0, len(secrets))
	for _, s := range secrets {
		sources = append(sources, secretsprovider.Source{ID: s.ID, FilePath: s.Path, Env: s.Env})
	}
	store, err := secretsprovider.NewStore(sources)
	if err != nil {
		return nil, err
	}
	return secretsprovider.NewSecretProvider(store), nil
}

// An SSH is an agent, or keys, that steps may sign with.
type SSH struct {
	ID    string   // default, or another name
	Paths []string // an agent's socket or private keys; none is the agent of SSH_AUTH_SOCK
}

// ParseSSH reads --ssh texts: default|ID[=SOCKET|KEY[,KEY…]].
func ParseSSH(values []string) []SSH {
	var all []SSH
	for _, text := range values {
		if text == "" {
			continue
		}
		id, paths, ok := strings.Cut(text, "=")
		s := SSH{ID: id}
		if ok {
			s.Paths = strings.Split(paths, ",")
		}
		all = append(all, s)
	}
	return all
}

// String is the text that ParseSSH reads.
func (s SSH) String() string {
	if len(s.Paths) == 0 {
		return s.ID
	}
	return s.ID + "=" + strings.Join(s.Paths, ",")
}

// sshProvider gives the session's part for agents; nil when there are none.
func sshProvider(all []SSH) (session.Attachable, error) {
	if len(all) == 0 {
		return nil, nil
	}
	var configs []sshprovider.AgentConfig
	for _, s := range all {
		c := sshprovider.AgentConfig{ID: s.ID}
		for _, p := range s.Paths {
			if p == "raw=true" || p == "raw=false" {
				c.Raw = p == "raw=true"
				continue
			}
			c.Paths = append(c.Paths, p)
		}
		configs = append(configs, c)
	}
	return sshprovider.NewSSHAgentProvider(configs)
}

// GitSession gives a session's parts for a git repository: secrets, and where it is reached by ssh the agent, or the keys and sockets that paths has
// between commas.
func GitSession(url, paths string, secrets []Secret) (parts []session.Attachable, err error) {
	if len(secrets) > 0 {
		p, err := secretProvider(secrets)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	if !isGitSSH(url) {
		return parts, nil
	}
	agent := SSH{ID: "default"}
	if paths != "" {
		agent.Paths = strings.Split(paths, ",")
	}
	p, err := sshProvider([]SSH{agent})
	if err != nil {
		return nil, err
	}
	return append(parts, p), nil
}
