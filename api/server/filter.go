package server

import (
	"encoding/json"
	"maps"
	"slices"

	"berth/base/fault"
)

// filters reads the query value "filters", in either of the two forms that clients send: {"name": ["a", "b"]} and, older, {"name":
// {"a": true}}. A name that is not among known is refused.
func (c *call) filters(known ...string) (map[string][]string, error) {
	out, err := parseFilters(c.text("filters"))
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(out)) {
		if !slices.Contains(known, name) {
			return nil, fault.New(fault.Invalid, "invalid filter '%s'", name)
		}
	}
	return out, nil
}

func parseFilters(text string) (map[string][]string, error) {
	if text == "" {
		return nil, nil
	}
	var lists map[string][]string
	if json.Unmarshal([]byte(text), &lists) == nil {
		return lists, nil
	}
	var sets map[string]map[string]bool
	if err := json.Unmarshal([]byte(text), &sets); err != nil {
		return nil, fault.New(fault.Invalid, "invalid filter")
	}
	lists = map[string][]string{}
	for name, values := range sets {
		lists[name] = slices.Sorted(maps.Keys(values))
	}
	return lists, nil
}

// badValue is the refusal of a filter's value.
func badValue(name, value string) error {
	return fault.New(fault.Invalid, "invalid filter '%s=%s'", name, value)
}

// onlyValues refuses values of a filter that are not among allowed.
func onlyValues(filters map[string][]string, name string, allowed ...string) error {
	for _, v := range filters[name] {
		if !slices.Contains(allowed, v) {
			return badValue(name, v)
		}
	}
	return nil
}
