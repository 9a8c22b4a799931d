package request

import (
	"encoding/csv"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/tonistiigi/go-csvvalue"
)

// pairs splits a flag's value into its comma-separated fields, each cut at the first '='; a field may be quoted as in CSV.
// bare is set for a field without '='.
func pairs(value string, each func(key, value string, bare bool) error) error {
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		return err
	}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if err := each(k, v, !ok); err != nil {
			return err
		}
	}
	return nil
}

// Join is the inverse of pairs for an attribute list that begins with first; keys are in order.
func Join(first []string, attrs map[string]string) string {
	fields := slices.Clone(first)
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		fields = append(fields, k+"="+attrs[k])
	}
	for i, f := range fields {
		if strings.ContainsAny(f, `,"`) {
			var b strings.Builder
			w := csv.NewWriter(&b)
			_ = w.Write([]string{f}) // a Builder takes everything
			w.Flush()
			fields[i] = strings.TrimSuffix(b.String(), "\n")
		}
	}
	return strings.Join(fields, ",")
}

// ParseMap reads KEY=VALUE texts. Where fromEnv is set, KEY alone takes its value from the environment and is left out
// when it has none there; else its value is empty.
func ParseMap(values []string, fromEnv bool) (map[string]string, error) {
	m := make(map[string]string, len(values))
	for _, text := range values {
		k, v, ok := strings.Cut(text, "=")
		if k == "" {
			return nil, fmt.Errorf("invalid key-value pair %q: empty key", text)
		}
		if !ok && fromEnv {
			if v, ok = os.LookupEnv(k); !ok {
				continue
			}
		}
		m[k] = v
	}
	return m, nil
}

// ParseContexts reads NAME=PLACE texts of --build-context.
func ParseContexts(values []string) (map[string]string, error) {
	m := make(map[string]string, len(values))
	for _, text := range values {
		if text == "" {
			continue
		}
		name, place, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("invalid context value: %s, expected key=value", text)
		}
		name, err := contextName(name)
		if err != nil {
			return nil, err
		}
		m[name] = place
	}
	return m, nil
}

// contextName is how the frontend looks a named context up: the familiar form of an image name, `latest` left out.
func contextName(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("invalid context name %s: %w", name, err)
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest"), nil
}

// A Call is what is asked of the frontend instead of a build.
type Call struct {
	Name         string // lint, outline, targets, subrequests.describe; "" is a build
	Format       string // "", json
	IgnoreStatus bool   // exit with 0 whatever was found
}

// ParseCall reads --call.
func ParseCall(value string) (Call, error) {
	var c Call
	if value == "" {
		return c, nil
	}
	err := pairs(value, func(k, v string, bare bool) (err error) {
		switch {
		case bare && c.Name != "":
			return fmt.Errorf("invalid print value: %s", value)
		case bare:
			c.Name = k
		case k == "format":
			c.Format = v
		case k == "ignorestatus":
			if c.IgnoreStatus, err = strconv.ParseBool(v); err != nil {
				return fmt.Errorf("invalid ignorestatus print value: %s: %w", v, err)
			}
		default:
			return fmt.Errorf("invalid print field: %s=%s", k, v)
		}
		return nil
	})
	switch c.Name {
	case "check":
		c.Name = "lint"
	case "build":
		c.Name = ""
	}
	return c, err
}
