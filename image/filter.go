package image

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/base/fault"
)

// Filters are what a client selects by: for each word the values given, of which one (or for label all) must fit.
type Filters map[string][]string

// known refuses words that the verb does not have, as Docker does.
func (f Filters) known(words ...string) error {
	for w := range f {
		if !slices.Contains(words, w) {
			return fault.New(fault.Invalid, "invalid filter '%s'", w)
		}
	}
	return nil
}

// flag reads a filter that is true or false; given tells whether it is there at all.
func (f Filters) flag(word string, otherwise bool) (value, given bool, err error) {
	values, given := f[word]
	if !given || len(values) == 0 {
		return otherwise, false, nil
	}
	yes, no := false, false
	for _, v := range values {
		switch v {
		case "1", "true":
			yes = true
		case "0", "false":
			no = true
		default:
			yes, no = true, true
		}
	}
	if yes == no {
		return false, true, fault.New(fault.Invalid, "invalid filter '%s=%s'", word, fmt.Sprint(values))
	}
	return yes, true, nil
}

// labels reports whether labels have all that a filter of the word names: "key" or "key=value".
func (f Filters) labels(word string, labels map[string]string) bool {
	for _, want := range f[word] {
		key, value, withValue := strings.Cut(want, "=")
		have, ok := labels[key]
		if !ok || withValue && have != value {
			return false
		}
	}
	return true
}

// moment reads a point in time as Docker's clients give it: seconds since 1970 with a fraction, a duration back from
// now ("10m", "1h30m"), or a date with as much of RFC 3339 as one likes.
func moment(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15",
		"2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	sec, fraction, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return time.Time{}, fault.New(fault.Invalid, "failed to parse value as time or duration: %q", s)
	}
	if fraction == "" {
		return time.Unix(n, 0), nil
	}
	if len(fraction) > 9 {
		fraction = fraction[:9]
	}
	nsec, err := strconv.ParseInt(fraction+strings.Repeat("0", 9-len(fraction)), 10, 64)
	if err != nil || nsec < 0 {
		return time.Time{}, fault.New(fault.Invalid, "failed to parse value as time or duration: %q", s)
	}
	return time.Unix(n, nsec), nil
}
