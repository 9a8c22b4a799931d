package remotecache

import (
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"berth/base/fault"
)

func parseBool(k, v string) (bool, error) {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fault.New(fault.Invalid, "failed to parse %s: %q is neither true nor false", k, v)
	}
	return b, nil
}

// parseMounts reads which cache mounts travel: true for all, or their ids separated by semicolons.
func parseMounts(v string) []string {
	if b, err := strconv.ParseBool(v); err == nil {
		if b {
			return []string{"*"}
		}
		return nil
	}
	var list []string
	for _, id := range strings.Split(v, ";") {
		if id = strings.TrimSpace(id); id != "" {
			list = append(list, id)
		}
	}
	return list
}

func parseSize(k, v string) (int64, error) {
	n, err := units.RAMInBytes(v)
	if err != nil || n <= 0 {
		return 0, fault.New(fault.Invalid, "%s is a size such as 500MB, not %q", k, v)
	}
	return n, nil
}

// parseScopes reads scopes, separated by semicolons.
func parseScopes(v string) (list []string, err error) {
	for _, s := range strings.Split(v, ";") {
		if !isScope(s) {
			return nil, fault.New(fault.Invalid, "scope %q: want letters, digits and any of _.-", s)
		}
		list = append(list, s)
	}
	return list, nil
}

// isScope reports whether a text can be a scope: a word of at most 128 letters, digits and any of _.-
func isScope(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return s != "" && len(s) <= 128
}
