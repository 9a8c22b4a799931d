package retention

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/registry/catalog"
	"berth/registry/storage"
)

// Result is what became of a plan.
type Result struct {
	Plan      string    `json:"plan"`
	At        time.Time `json:"at"`
	Scheduled bool      `json:"scheduled,omitempty"`
	Untagged  int       `json:"untagged"` // tags taken away
	Deleted   int       `json:"deleted"`  // manifests taken out
	Skipped   []Skip    `json:"skipped,omitempty"`
	Error     string    `json:"error,omitempty"` // what ended the run early
}

// Skip is a step that was not done because the world had changed.
type Skip struct {
	Repository string `json:"repository"`
	Step
}

// Still says which steps of a plan for a repository may still be done, given how the repository is now, and which not and why.
// It only ever takes steps away.
func Still(plan Repo, now Repository) (still Repo, skipped []Skip) {
	still = Repo{Name: plan.Name}
	skip := func(s Step, why string) {
		s.Why = why
		skipped = append(skipped, Skip{plan.Name, s})
	}
	tags, manifests := map[string]Tag{}, map[digest.Digest]Manifest{}
	for _, t := range now.Tags {
		tags[t.Name] = t
	}
	for _, m := range now.Manifests {
		manifests[m.Digest] = m
	}
	goes := map[digest.Digest]bool{} // manifests that the plan still takes out
	for _, s := range plan.Delete {
		switch m, here := manifests[s.Digest]; {
		case !here:
			skip(s, "it is gone already")
		case m.At.After(s.At):
			skip(s, "it was pushed again")
		default:
			goes[s.Digest] = true
		}
	}
	for _, s := range plan.Untag {
		switch t, here := tags[s.Tag]; {
		case !here:
			skip(s, "it is gone already")
		case t.Digest != s.Digest:
			skip(s, "it stands for "+string(t.Digest)+" now")
		case t.At.After(s.At):
			skip(s, "it was set again")
		default:
			still.Untag = append(still.Untag, s)
			delete(tags, s.Tag)
		}
	}
	// What stays keeps what it needs. What turns out to be needed stays and keeps others, until nothing changes.
	stays := func(d digest.Digest) bool { _, here := manifests[d]; return here && !goes[d] }
	for changed := true; changed; {
		changed = false
		keep := func(d digest.Digest, why string) {
			if !goes[d] {
				return
			}
			delete(goes, d)
			changed = true
			for _, s := range plan.Delete {
				if s.Digest == d {
					skip(s, why)
				}
			}
		}
		still.Untag = slices.DeleteFunc(still.Untag, func(s Step) bool {
			subject, ok := catalog.BoundTag(s.Tag)
			if !ok || !stays(subject) {
				return false
			}
			tags[s.Tag] = Tag{s.Tag, s.Digest, s.At}
			skip(s, "about "+short(subject)+", which stays")
			return true
		})
		for _, t := range tags {
			keep(t.Digest, "tag "+t.Name+" stands for it")
		}
		for _, m := range now.Manifests {
			if goes[m.Digest] {
				if m.Subject != "" && stays(m.Subject) {
					keep(m.Digest, "about "+short(m.Subject)+", which stays")
				}
				continue
			}
			for _, child := range m.Manifests {
				keep(child, "it is part of "+short(m.Digest))
			}
			keep(m.Subject, short(m.Digest)+" is about it")
		}
	}
	for _, s := range plan.Delete {
		if goes[s.Digest] {
			still.Delete = append(still.Delete, s)
		}
	}
	slices.SortFunc(skipped, func(a, b Skip) int { return cmp.Or(cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Digest, b.Digest)) })
	return still, skipped
}

// Observe reads a repository as the planner wants it.
func Observe(ctx context.Context, s *storage.Store, repository string) (Repository, error) {
	r := Repository{Name: repository}
	// Tags after manifests: a tag that is set meanwhile stands for a manifest that is not seen, and that is left alone.
	for rec, err := range s.Manifests(ctx, repository) {
		if err != nil {
			return r, fault.In(err, "read the manifests of %s", repository)
		}
		m := Manifest{Digest: rec.Digest, At: rec.At, Subject: rec.Subject, Size: rec.Size, Blobs: map[digest.Digest]int64{}}
		for _, c := range rec.Manifests {
			m.Manifests = append(m.Manifests, c.Digest)
		}
		for _, b := range rec.Blobs {
			m.Blobs[b.Digest] = b.Size
		}
		r.Manifests = append(r.Manifests, m)
	}
	for t, err := range s.TagsOf(ctx, repository) {
		if err != nil {
			return r, fault.In(err, "read the tags of %s", repository)
		}
		r.Tags = append(r.Tags, Tag{t.Name, t.Digest, t.At})
	}
	return r, nil
}

// applyRepo does what is left of a plan for one repository.
func (e *Engine) applyRepo(ctx context.Context, plan Repo, result *Result) error {
	now, err := Observe(ctx, e.cfg.Storage, plan.Name)
	if err != nil {
		return err
	}
	still, skipped := Still(plan, now)
	result.Skipped = append(result.Skipped, skipped...)
	for _, s := range still.Untag {
		if err := ctx.Err(); err != nil {
			return err
		}
		failpoint.Hit("registry/retention-step")
		done, err := e.untag(ctx, plan.Name, s)
		if err != nil {
			return err
		}
		if !done {
			s.Why = "it was set again"
			result.Skipped = append(result.Skipped, Skip{plan.Name, s})
			continue
		}
		result.Untagged++
		e.cfg.tell(plan.Name, s.Tag, s.Digest)
	}
	var taken []*storage.Manifest
	for _, s := range still.Delete {
		if err := ctx.Err(); err != nil {
			return err
		}
		failpoint.Hit("registry/retention-step")
		m, err := e.take(ctx, plan.Name, s)
		if err != nil {
			return err
		}
		if m == nil {
			s.Why = "it is gone already, or has a tag now"
			result.Skipped = append(result.Skipped, Skip{plan.Name, s})
			continue
		}
		taken = append(taken, m)
		result.Deleted++
		e.cfg.tell(plan.Name, "", s.Digest)
	}
	return e.repair(ctx, plan.Name, taken, result)
}

// untag takes a tag away that stands for what the plan says. The storage removes by name: should the tag have been
// moved between the look and the removal, it is put back.
func (e *Engine) untag(ctx context.Context, repository string, s Step) (bool, error) {
	t, err := e.cfg.Storage.Tag(ctx, repository, s.Tag)
	if fault.Is(err, fault.NotFound) || err == nil && t.Digest != s.Digest {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	was, err := e.cfg.Storage.DeleteTag(ctx, repository, s.Tag)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil || was.Digest == s.Digest {
		return err == nil, err
	}
	return false, e.put(ctx, repository, was.Digest, []string{s.Tag})
}

// take takes a manifest out that has no tag; it gives what was taken, nil for nothing. A tag that was given to it in the last
// moment comes back, with it.
func (e *Engine) take(ctx context.Context, repository string, s Step) (*storage.Manifest, error) {
	m, err := e.cfg.Storage.Manifest(ctx, repository, string(s.Digest))
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	tags, err := e.cfg.Storage.DeleteManifest(ctx, repository, s.Digest)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil || len(tags) == 0 {
		return m, err
	}
	_, err = e.cfg.Storage.PutManifest(ctx, repository, storage.Put{Reference: string(s.Digest), Tags: tags, MediaType: m.MediaType, Content: m.Content})
	return nil, err
}

// put gives a manifest that is there its tags back.
func (e *Engine) put(ctx context.Context, repository string, d digest.Digest, tags []string) error {
	m, err := e.cfg.Storage.Manifest(ctx, repository, string(d))
	if err != nil {
		return err
	}
	_, err = e.cfg.Storage.PutManifest(ctx, repository, storage.Put{Reference: string(d), Tags: tags, MediaType: m.MediaType, Content: m.Content})
	return err
}

// repair puts back what an index that was pushed during the run names. The store sees to it that a manifest is complete when it is
// put, but between our look and our removal it was.
func (e *Engine) repair(ctx context.Context, repository string, taken []*storage.Manifest, result *Result) error {
	if len(taken) == 0 {
		return nil
	}
	now, err := Observe(ctx, e.cfg.Storage, repository)
	if err != nil {
		return err
	}
	named := map[digest.Digest]bool{}
	for _, m := range now.Manifests {
		for _, c := range m.Manifests {
			named[c] = true
		}
	}
	for _, m := range slices.Backward(taken) { // parts before what they are part of
		if !named[m.Digest] {
			continue
		}
		for _, c := range m.Record.Manifests {
			named[c.Digest] = true
		}
		if _, err := e.cfg.Storage.PutManifest(ctx, repository, storage.Put{Reference: string(m.Digest), MediaType: m.MediaType, Content: m.Content}); err != nil {
			return fault.In(err, "put back %s, which an index names that was pushed meanwhile", m.Digest)
		}
		result.Deleted--
		result.Skipped = append(result.Skipped, Skip{repository, Step{Digest: m.Digest, At: m.At, Why: "an index that was pushed meanwhile names it"}})
	}
	return nil
}
