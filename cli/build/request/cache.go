package request

import (
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/go-csvvalue"
)

// A Cache is a place outside the engine that a build's cache is read from or written to.
type Cache struct {
	Type  string // registry, local, inline, s3, gha, …
	Attrs map[string]string
}

// ParseCaches reads --cache-from and --cache-to texts; one without '=' is a list of image names.
func ParseCaches(values []string) ([]Cache, error) {
	var all []Cache
	for _, text := range values {
		if text == "" {
			continue
		}
		if !strings.Contains(text, "=") {
			refs, err := csvvalue.Fields(text, nil)
			if err != nil {
				return nil, err
			}
			for _, ref := range refs {
				all = append(all, Cache{Type: "registry", Attrs: map[string]string{"ref": ref}})
			}
			continue
		}
		c := Cache{Attrs: map[string]string{}}
		err := pairs(text, func(k, v string, bare bool) error {
			switch key := strings.ToLower(k); {
			case bare:
				return fmt.Errorf("invalid value %s", k)
			case key == "type":
				c.Type = v
			default:
				c.Attrs[key] = v
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if c.Type == "" {
			return nil, fmt.Errorf("type required for %q", text)
		}
		all = append(all, c)
	}
	return all, nil
}

// String is the text that ParseCaches reads.
func (c Cache) String() string {
	if c.Type == "registry" && len(c.Attrs) == 1 && c.Attrs["ref"] != "" {
		return c.Attrs["ref"]
	}
	return Join([]string{"type=" + c.Type}, c.Attrs)
}

// cacheEntries gives the wire's entries. Credentials of s3 and gha that the attributes lack come from the
// environment, as with buildx: they are the client's, the engine has none of them. A gha cache outside of a GitHub job is left out.
func cacheEntries(caches []Cache) []client.CacheOptionsEntry {
	var all []client.CacheOptionsEntry
	for _, c := range caches {
		e := client.CacheOptionsEntry{Type: c.Type, Attrs: maps.Clone(c.Attrs)}
		switch c.Type {
		case "s3":
			fromEnv(e.Attrs, "access_key_id", "AWS_ACCESS_KEY_ID")
			fromEnv(e.Attrs, "secret_access_key", "AWS_SECRET_ACCESS_KEY")
			fromEnv(e.Attrs, "session_token", "AWS_SESSION_TOKEN")
		case "gha":
			fromEnv(e.Attrs, "token", "ACTIONS_RUNTIME_TOKEN")
			if v2, _ := strconv.ParseBool(os.Getenv("ACTIONS_CACHE_SERVICE_V2")); v2 || e.Attrs["version"] == "2" {
				fromEnv(e.Attrs, "url_v2", "ACTIONS_RESULTS_URL")
			}
			fromEnv(e.Attrs, "url", "ACTIONS_CACHE_URL")
			fromEnv(e.Attrs, "url", "ACTIONS_RESULTS_URL")
			if e.Attrs["token"] == "" || e.Attrs["url"] == "" && e.Attrs["url_v2"] == "" {
				continue
			}
		}
		all = append(all, e)
	}
	return all
}

// fromEnv fills an attribute that is not there.
func fromEnv(attrs map[string]string, key, variable string) {
	if _, ok := attrs[key]; ok {
		return
	}
	if v := os.Getenv(variable); v != "" {
		attrs[key] = v
	}
}
