package retention

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/registry/catalog"
	"berth/registry/door"
	"berth/registry/pattern"
)

// Repository is a repository as it was observed.
type Repository struct {
	Name      string
	Tags      []Tag
	Manifests []Manifest
}

// Tag is a tag as it was observed.
type Tag struct {
	Name   string
	Digest digest.Digest
	At     time.Time // when it was set last
}

// Manifest is a manifest as it was observed.
type Manifest struct {
	Digest    digest.Digest
	At        time.Time       // when it was pushed last
	Subject   digest.Digest   // what it is about; "": nothing
	Manifests []digest.Digest // of an index
	Blobs     map[digest.Digest]int64
	Size      int64 // bytes of the manifest itself
}

// Plan is what would go, and why.
type Plan struct {
	ID           string    `json:"id"` // of what would be done: two plans with one ID do the same
	Made         time.Time `json:"made"`
	Repositories []Repo    `json:"repositories"` // those where something goes or is looked at, by name
	Policy       Policy    `json:"policy"`
}

// Repo is what would be done to one repository.
type Repo struct {
	Name   string `json:"name"`
	Untag  []Step `json:"untag,omitempty"`
	Delete []Step `json:"delete,omitempty"` // those that name others first
	Stays  []Step `json:"stays,omitempty"`  // tags, and why
	Frees  int64  `json:"frees"`            // bytes that nothing else in the repository needs: what a collection can free at most
}

// Step is one tag or manifest with what is to be said of it.
type Step struct {
	Tag    string        `json:"tag,omitempty"` // "" for a manifest
	Digest digest.Digest `json:"digest"`
	At     time.Time     `json:"at"`
	Why    string        `json:"why"`
}

// Empty reports whether nothing would go.
func (p Plan) Empty() bool {
	return !slices.ContainsFunc(p.Repositories, func(r Repo) bool { return len(r.Untag)+len(r.Delete) > 0 })
}

// Make says what the policy means for the repositories at the time now. It changes nothing.
func Make(policy Policy, repositories []Repository, now time.Time) Plan {
	p := Plan{Made: now.UTC().Truncate(time.Second), Policy: policy, Repositories: []Repo{}}
	for _, r := range repositories {
		if done, looked := judge(policy, r, now); looked {
			p.Repositories = append(p.Repositories, done)
		}
	}
	slices.SortFunc(p.Repositories, func(a, b Repo) int { return cmp.Compare(a.Name, b.Name) })
	p.ID = p.id()
	return p
}

// id is a digest of what would be done, without reasons, times and what stays.
func (p Plan) id() string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, r := range p.Repositories {
		for _, steps := range [][]Step{r.Untag, r.Delete} {
			for _, s := range steps {
				enc.Encode([]string{r.Name, s.Tag, string(s.Digest)}) // a hash takes everything
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// A court judges one repository.
type court struct {
	policy    Policy
	repo      Repository
	now       time.Time
	manifests map[digest.Digest]Manifest
	needed    map[digest.Digest]bool            // stays
	about     map[digest.Digest][]digest.Digest // subject -> what is about it
	out       Repo
}

// judge decides about one repository; looked is false when no rule is for it.
func judge(policy Policy, repo Repository, now time.Time) (out Repo, looked bool) {
	c := &court{policy: policy, repo: repo, now: now, manifests: map[digest.Digest]Manifest{},
		needed: map[digest.Digest]bool{}, about: map[digest.Digest][]digest.Digest{}, out: Repo{Name: repo.Name}}
	looked = slices.ContainsFunc(policy.Rules, func(r Rule) bool { return pattern.Any(r.Repositories, repo.Name) })
	if !looked {
		return Repo{}, false
	}
	for _, m := range repo.Manifests {
		c.manifests[m.Digest] = m
		if m.Subject != "" {
			c.about[m.Subject] = append(c.about[m.Subject], m.Digest)
		}
	}
	var own, bound []Tag
	for _, t := range repo.Tags {
		if subject, ok := catalog.BoundTag(t.Name); ok {
			bound = append(bound, t)
			c.about[subject] = append(c.about[subject], t.Digest)
		} else {
			own = append(own, t)
		}
	}
	c.tags(own)
	c.untagged()
	c.bound(bound)
	c.remove()
	c.sort()
	return c.out, true
}

// tags decides about the tags that people set.
func (c *court) tags(own []Tag) {
	slices.SortFunc(own, func(a, b Tag) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Name, b.Name)) })
	images := map[int]map[digest.Digest]int{} // rule -> image -> its place by push time, from 1
	for _, t := range own {
		i := c.policy.forTag(c.repo.Name, t.Name)
		if i < 0 {
			c.stays(t, "no rule is for it")
			continue
		}
		if images[i] == nil {
			images[i] = map[digest.Digest]int{}
		}
		if images[i][t.Digest] == 0 {
			images[i][t.Digest] = len(images[i]) + 1
		}
		kept, why := c.policy.Rules[i].Keep.judge(t, images[i][t.Digest], c.now)
		why += " (rule " + c.policy.name(i) + ")"
		if kept {
			c.stays(t, why)
			continue
		}
		c.out.Untag = append(c.out.Untag, Step{t.Name, t.Digest, t.At, why})
	}
}

// judge holds one tag against what a rule keeps. place is its image's place by push time.
func (k *Keep) judge(t Tag, place int, now time.Time) (kept bool, why string) {
	age := now.Sub(t.At)
	switch {
	case k.All:
		return true, "all are kept"
	case place <= k.Last:
		return true, fmt.Sprintf("among the last %d", k.Last)
	case pattern.Any(k.Tags, t.Name):
		return true, "kept by its name"
	case age < time.Duration(k.Younger):
		return true, "younger than " + ageText(k.Younger)
	}
	why = "its name is not kept"
	if len(k.Tags) == 0 {
		why = ""
	}
	add := func(s string) {
		if why != "" {
			why += ", "
		}
		why += s
	}
	if k.Last > 0 {
		add(fmt.Sprintf("not among the last %d", k.Last))
	}
	if k.Younger > 0 {
		add("older than " + ageText(k.Younger))
	}
	return false, why
}

func (c *court) stays(t Tag, why string) {
	c.out.Stays = append(c.out.Stays, Step{t.Name, t.Digest, t.At, why})
	c.need(t.Digest)
}

// untagged has the manifests stay that are too young to go without a tag. Without a rule for them all stay, also those
// that lose their tag.
func (c *court) untagged() {
	i := c.policy.forUntagged(c.repo.Name)
	for _, m := range c.repo.Manifests {
		if i < 0 || c.now.Sub(m.At) < time.Duration(*c.policy.Rules[i].Untagged) {
			c.need(m.Digest)
		}
	}
}

// bound decides about the tags that stand for something about a manifest: they go with it.
func (c *court) bound(tags []Tag) {
	i := c.policy.forUntagged(c.repo.Name)
	for _, t := range tags {
		subject, _ := catalog.BoundTag(t.Name)
		_, here := c.manifests[subject]
		switch {
		case i < 0:
			c.stays(t, "no rule is for what is about a manifest")
		case c.now.Sub(t.At) < time.Duration(*c.policy.Rules[i].Untagged):
			c.stays(t, "younger than "+ageText(*c.policy.Rules[i].Untagged))
			c.need(subject)
		case here && c.needed[subject]:
			c.stays(t, "about "+short(subject)+", which stays")
		case here:
			c.out.Untag = append(c.out.Untag, Step{t.Name, t.Digest, t.At, "about " + short(subject) + ", which goes"})
		default:
			c.out.Untag = append(c.out.Untag, Step{t.Name, t.Digest, t.At, "about " + short(subject) + ", which is not here"})
		}
	}
	// A bound tag that was found young has made its subject stay: what was judged before it must follow.
	c.out.Untag = slices.DeleteFunc(c.out.Untag, func(s Step) bool {
		subject, ok := catalog.BoundTag(s.Tag)
		if !ok || !c.needed[subject] {
			return false
		}
		c.stays(Tag{s.Tag, s.Digest, s.At}, "about "+short(subject)+", which stays")
		return true
	})
}

// need has a manifest stay, with all that it needs: its parts, its subject, and what is about it.
func (c *court) need(d digest.Digest) {
	for todo := []digest.Digest{d}; len(todo) > 0; {
		d, todo = todo[0], todo[1:]
		m, here := c.manifests[d]
		if c.needed[d] || !here {
			continue
		}
		c.needed[d] = true
		todo = append(todo, m.Manifests...)
		todo = append(todo, c.about[d]...)
		if m.Subject != "" {
			todo = append(todo, m.Subject)
		}
	}
}

// remove lists the manifests that nothing needs, those first that name others, so that a run that is cut off leaves no
// index with holes.
func (c *court) remove() {
	i := c.policy.forUntagged(c.repo.Name)
	if i < 0 {
		return
	}
	loses := map[digest.Digest]string{}
	for _, s := range c.out.Untag {
		loses[s.Digest] = s.Tag
	}
	var gone []Manifest
	partOf := map[digest.Digest]digest.Digest{}
	for _, m := range c.repo.Manifests {
		if c.needed[m.Digest] {
			continue
		}
		gone = append(gone, m)
		for _, child := range m.Manifests {
			partOf[child] = m.Digest
		}
	}
	slices.SortFunc(gone, func(a, b Manifest) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Digest, b.Digest)) })
	for _, m := range namersFirst(gone) {
		why := "untagged, older than " + ageText(*c.policy.Rules[i].Untagged)
		switch tag, lost := loses[m.Digest]; {
		case lost:
			why = "its tag " + tag + " goes"
		case partOf[m.Digest] != "":
			why = "part of " + short(partOf[m.Digest]) + ", which goes"
		case m.Subject != "":
			why = "about " + short(m.Subject) + ", which goes or is not here"
		}
		c.out.Delete = append(c.out.Delete, Step{"", m.Digest, m.At, why + " (rule " + c.policy.name(i) + ")"})
	}
	c.out.Frees = c.frees(gone)
}

// namersFirst orders manifests so that each stands before what it names.
func namersFirst(all []Manifest) []Manifest {
	byDigest, named := map[digest.Digest]Manifest{}, map[digest.Digest]int{}
	for _, m := range all {
		byDigest[m.Digest] = m
		for _, d := range append(slices.Clone(m.Manifests), m.Subject) {
			named[d]++
		}
	}
	var out, ready []Manifest
	for _, m := range all {
		if named[m.Digest] == 0 {
			ready = append(ready, m)
		}
	}
	for len(ready) > 0 {
		m := ready[0]
		ready = ready[1:]
		out = append(out, m)
		for _, d := range append(slices.Clone(m.Manifests), m.Subject) {
			if named[d]--; named[d] == 0 {
				if next, ok := byDigest[d]; ok {
					ready = append(ready, next)
				}
			}
		}
	}
	return out // digests cannot name each other in a circle
}

// frees adds up the blobs that only what goes names.
func (c *court) frees(gone []Manifest) int64 {
	kept := map[digest.Digest]bool{}
	for d := range c.needed {
		for b := range c.manifests[d].Blobs {
			kept[b] = true
		}
	}
	var n int64
	for _, m := range gone {
		n += m.Size
		for b, size := range m.Blobs {
			if !kept[b] {
				kept[b] = true
				n += size
			}
		}
	}
	return n
}

func (c *court) sort() {
	byTag := func(a, b Step) int { return cmp.Compare(a.Tag, b.Tag) }
	slices.SortFunc(c.out.Untag, byTag)
	slices.SortFunc(c.out.Stays, byTag)
}

// short is enough of a digest to find it by.
func short(d digest.Digest) string {
	if len(d) > 19 {
		return string(d[:19])
	}
	return string(d)
}

// ageText writes an age as people say it: 7d, 36h, 90m.
func ageText(d door.Duration) string {
	t := time.Duration(d)
	switch {
	case t >= 24*time.Hour && t%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", t/(24*time.Hour))
	case t >= time.Hour && t%time.Hour == 0:
		return fmt.Sprintf("%dh", t/time.Hour)
	case t >= time.Minute && t%time.Minute == 0:
		return fmt.Sprintf("%dm", t/time.Minute)
	}
	return t.String()
}
