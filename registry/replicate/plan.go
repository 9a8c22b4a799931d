package replicate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// Action is what a plan does with a tag.
type Action string

// The actions.
const (
	Push   Action = "push"   // the target does not have it
	Move   Action = "move"   // the target has another
	Delete Action = "delete" // it is not here any more
)

// Item is one tag that differs.
type Item struct {
	Action     Action        `json:"action"`
	Repository string        `json:"repository"`
	Tag        string        `json:"tag"`
	Target     string        `json:"target"`           // the whole name there
	Digest     digest.Digest `json:"digest"`           // here; of a deleted one: there
	Before     digest.Digest `json:"before,omitempty"` // there, of one that moves
	Size       int64         `json:"size,omitempty"`   // of the manifest and what it names, in bytes; what the target has already is not sent
}

// Plan is what has to be done so that a target has what a rule says.
type Plan struct {
	ID       string   `json:"id"` // the same for the same plan
	Rule     string   `json:"rule"`
	Registry string   `json:"registry"`
	Items    []Item   `json:"items"`
	Same     int      `json:"same"`               // tags that the target has already
	Problems []string `json:"problems,omitempty"` // repositories that could not be compared
}

// Plan compares what a rule covers with its target. Nothing is changed.
func (r *Replicator) Plan(ctx context.Context, name string) (*Plan, error) {
	w, err := r.worker(name)
	if err != nil {
		return nil, err
	}
	names, err := r.cfg.Store.Repositories(ctx, "")
	if err != nil {
		return nil, err
	}
	p := &Plan{Rule: name, Registry: w.rule.Registry, Items: []Item{}}
	for _, repository := range names {
		if !w.rule.covers(repository) {
			continue
		}
		if err := r.compare(ctx, w, p, repository); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			p.Problems = append(p.Problems, repository+": "+err.Error())
			if len(p.Problems) >= 10 && len(p.Items) == 0 && p.Same == 0 {
				return nil, fault.In(err, "compare with %s", w.rule.Registry) // it does not answer at all
			}
		}
	}
	h := sha256.New()
	for _, i := range p.Items {
		fmt.Fprintln(h, i.Action, i.Target, i.Digest, i.Before)
	}
	p.ID = hex.EncodeToString(h.Sum(nil))[:16]
	return p, nil
}

// compare adds what differs in one repository.
func (r *Replicator) compare(ctx context.Context, w *worker, p *Plan, repository string) error {
	target := w.rule.target(repository)
	there := w.repository(target)
	here := map[string]digest.Digest{}
	for t, err := range r.cfg.Store.TagsOf(ctx, repository) {
		if err != nil {
			return err
		}
		if w.rule.wants(t.Name) {
			here[t.Name] = t.Digest
		}
	}
	tags, err := there.Tags(ctx)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	for _, tag := range sorted(here) {
		item := Item{Action: Push, Repository: repository, Tag: tag, Digest: here[tag], Target: target.Repository() + ":" + tag}
		if slices.Contains(tags, tag) {
			d, err := there.Resolve(ctx, tag)
			switch {
			case err == nil && d.Digest == item.Digest:
				p.Same++
				continue
			case err == nil:
				item.Action, item.Before = Move, d.Digest
			case !fault.Is(err, fault.NotFound):
				return err
			}
		}
		if item.Size, err = r.weigh(ctx, repository, item.Digest); err != nil {
			return err
		}
		p.Items = append(p.Items, item)
	}
	if !w.rule.Deletes {
		return nil
	}
	for _, tag := range tags {
		if _, ok := here[tag]; ok || !w.rule.wants(tag) {
			continue
		}
		d, err := there.Resolve(ctx, tag)
		if err != nil {
			return err
		}
		p.Items = append(p.Items, Item{Action: Delete, Repository: repository, Tag: tag, Target: target.Repository() + ":" + tag, Digest: d.Digest})
	}
	return nil
}

// weigh adds up a manifest and what it names, each thing once.
func (r *Replicator) weigh(ctx context.Context, repository string, d digest.Digest) (int64, error) {
	seen := map[digest.Digest]bool{}
	var add func(d digest.Digest) (int64, error)
	add = func(d digest.Digest) (int64, error) {
		if seen[d] {
			return 0, nil
		}
		seen[d] = true
		rec, err := r.cfg.Store.Record(ctx, repository, d.String())
		if fault.Is(err, fault.NotFound) {
			return 0, nil // an index of which this manifest is not here
		}
		if err != nil {
			return 0, err
		}
		total := rec.Size
		for _, b := range rec.Blobs {
			if !seen[b.Digest] {
				seen[b.Digest] = true
				total += b.Size
			}
		}
		for _, m := range rec.Manifests {
			n, err := add(m.Digest)
			if err != nil {
				return 0, err
			}
			total += n
		}
		return total, nil
	}
	return add(d)
}

// Write prints the plan.
func (p *Plan) Write(w io.Writer) {
	fmt.Fprintf(w, "replication %s to %s: plan %s\n", p.Rule, p.Registry, p.ID)
	var size int64
	for _, i := range p.Items {
		switch i.Action {
		case Push:
			fmt.Fprintf(w, "  push    %s:%s → %s  %s  %s\n", i.Repository, i.Tag, i.Target, short(i.Digest), units.HumanSize(float64(i.Size)))
		case Move:
			fmt.Fprintf(w, "  move    %s:%s → %s  %s, was %s  %s\n", i.Repository, i.Tag, i.Target, short(i.Digest), short(i.Before), units.HumanSize(float64(i.Size)))
		case Delete:
			fmt.Fprintf(w, "  delete  %s  %s\n", i.Target, short(i.Digest))
		}
		size += i.Size
	}
	for _, x := range p.Problems {
		fmt.Fprintf(w, "  cannot compare %s\n", x)
	}
	fmt.Fprintf(w, "%d to do, at most %s; %d the same\n", len(p.Items), units.HumanSize(float64(size)), p.Same)
}

func short(d digest.Digest) string {
	s := d.String()
	return s[:min(len(s), len("sha256:")+12)]
}

// Apply makes the jobs of a plan. With an id it must still be that plan: Conflict otherwise. It gives the plan that was applied.
func (r *Replicator) Apply(ctx context.Context, name, id string) (*Plan, error) {
	p, err := r.Plan(ctx, name)
	if err != nil {
		return nil, err
	}
	if id != "" && id != p.ID {
		return nil, fault.New(fault.Conflict, "something has changed since plan %s: it would be %s now", id, p.ID)
	}
	now := r.now()
	var jobs []Job
	for _, i := range p.Items {
		jobs = append(jobs, Job{Rule: name, Repository: i.Repository, Reference: i.Tag, Delete: i.Action == Delete, Digest: i.Digest, Added: now, Next: now})
	}
	if err := r.queue.add(jobs...); err != nil {
		return nil, err
	}
	w, err := r.worker(name)
	if err != nil {
		return nil, err
	}
	w.wake()
	return p, nil
}

func sorted(m map[string]digest.Digest) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
