package retention

import (
	"fmt"
	"time"

	"berth/base/fault"
	"berth/registry/door"
	"berth/registry/pattern"
)

// Policy is what is kept, of all repositories. The zero Policy keeps everything.
type Policy struct {
	Every door.Duration `json:"every,omitempty"` // time between scheduled runs; 0: only when asked
	Rules []Rule        `json:"rules"`
}

// Rule says what is kept of the tags that it fits.
type Rule struct {
	Name         string         `json:"name,omitempty"`     // for people; without one the rule is called by its number
	Repositories []string       `json:"repositories"`       // patterns
	Tags         []string       `json:"tags,omitempty"`     // patterns; none: all tags
	Keep         *Keep          `json:"keep,omitempty"`     // nil: the rule says nothing about tags
	Untagged     *door.Duration `json:"untagged,omitempty"` // manifests without a tag go when they are older; nil: the rule says nothing about them
}

// Keep says which tags stay: all that one of the criteria names.
type Keep struct {
	All     bool          `json:"all,omitempty"`
	Last    int           `json:"last,omitempty"`    // the tags of so many images, the ones pushed last; tags of one image count once
	Tags    []string      `json:"tags,omitempty"`    // patterns
	Younger door.Duration `json:"younger,omitempty"` // pushed within this time
}

// Check refuses a policy that cannot be meant. Errors are Invalid and name the rule.
func (p Policy) Check() error {
	if p.Every != 0 && p.Every < door.Duration(time.Minute) {
		return fault.New(fault.Invalid, "every: runs must be a minute apart at least")
	}
	for i, r := range p.Rules {
		if err := r.check(); err != nil {
			return fault.In(err, "rule %s", p.name(i))
		}
	}
	return nil
}

func (r Rule) check() error {
	if len(r.Repositories) == 0 {
		return fault.New(fault.Invalid, `it names no repositories; for all of them say "**"`)
	}
	for _, patterns := range [][]string{r.Repositories, r.Tags} {
		if err := pattern.Check(patterns); err != nil {
			return err
		}
	}
	if r.Untagged != nil && *r.Untagged < 0 {
		return fault.New(fault.Invalid, "untagged must not be negative")
	}
	k := r.Keep
	switch {
	case k == nil && r.Untagged == nil:
		return fault.New(fault.Invalid, `it says neither "keep" nor "untagged"`)
	case k == nil:
		return nil
	case !k.All && k.Last == 0 && len(k.Tags) == 0 && k.Younger == 0:
		return fault.New(fault.Invalid, `"keep" names nothing, and every tag would go; say "all", "last", "tags" or "younger"`)
	case k.Last < 0 || k.Younger < 0:
		return fault.New(fault.Invalid, "last and younger must not be negative")
	}
	return pattern.Check(k.Tags)
}

// name is how a rule is called in a plan.
func (p Policy) name(i int) string {
	if p.Rules[i].Name != "" {
		return fmt.Sprintf("%q", p.Rules[i].Name)
	}
	return fmt.Sprint(i + 1)
}

// forTag gives the rule that decides about a tag, -1 for none.
func (p Policy) forTag(repository, tag string) int {
	for i, r := range p.Rules {
		if r.Keep != nil && pattern.Any(r.Repositories, repository) && (len(r.Tags) == 0 || pattern.Any(r.Tags, tag)) {
			return i
		}
	}
	return -1
}

// forUntagged gives the rule that decides about manifests without a tag, -1 for none.
func (p Policy) forUntagged(repository string) int {
	for i, r := range p.Rules {
		if r.Untagged != nil && pattern.Any(r.Repositories, repository) {
			return i
		}
	}
	return -1
}
