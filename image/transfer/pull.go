package transfer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/ref"
	"berth/base/trace"
	"berth/image"
	"berth/image/layer"
)

// Pull brings an image, or all tags of a repository, here: PlanPull and its application. Pulls at the same time share
// layers that both want. Errors are in Docker's words; after one no name has changed, except that of all tags those before
// the one that failed have been pulled.
func (t *Transfer) Pull(ctx context.Context, req PullRequest) (*Pulled, error) {
	b := newBoard(req.Progress)
	defer b.close()
	in, end := trace.Start(ctx, "pull/plan", "image", req.Name.String())
	plan, err := t.planPull(in, req, b)
	end(err)
	if err != nil {
		return nil, err
	}
	in, end = trace.Start(ctx, "pull/apply")
	pulled, err := t.applyPull(in, plan, b)
	end(err)
	return pulled, err
}

// ApplyPull does what a plan says.
func (t *Transfer) ApplyPull(ctx context.Context, plan *PullPlan, progress func(Progress)) (*Pulled, error) {
	b := newBoard(progress)
	defer b.close()
	return t.applyPull(ctx, plan, b)
}

func (t *Transfer) applyPull(ctx context.Context, plan *PullPlan, b *board) (*Pulled, error) {
	done := &Pulled{}
	news := false
	for _, p := range plan.Images {
		if plan.AllTags {
			b.status(tagOrDigest(p.Name), "Pulling from "+p.Name.Path)
		}
		one, err := t.pullImage(ctx, p, b)
		if err != nil {
			return done, err
		}
		news = news || !one.UpToDate
		done.Images = append(done.Images, *one)
	}
	for _, s := range plan.Skipped {
		b.status(s.Tag, fmt.Sprintf("Skipped: %v", s.Err))
	}
	b.status("", statusLine(plan, news))
	for _, p := range plan.Images {
		if p.Warning != "" {
			b.status("", p.Warning)
		}
	}
	return done, nil
}

// statusLine is the last line of docker pull.
func statusLine(plan *PullPlan, news bool) string {
	name := plan.Name.Familiar()
	if !plan.AllTags {
		p := plan.Images[0]
		name = p.Name.Familiar()
		if s := p.Stale; s != nil {
			return fmt.Sprintf("Status: Using the existing image for %s, which is %s old: the registry cannot be asked", name, age(s.Age))
		}
	}
	if news {
		return "Status: Downloaded newer image for " + name
	}
	return "Status: Image is up to date for " + name
}

func tagOrDigest(name ref.Ref) string {
	if name.Digest != "" {
		return string(name.Digest)
	}
	return name.Tag
}

// pullImage applies the plan for one name.
func (t *Transfer) pullImage(ctx context.Context, p *PullImage, b *board) (*PulledImage, error) {
	if p.Stale != nil {
		return t.useStale(p, b), nil
	}
	if t.cfg.Verify != nil {
		if err := t.cfg.Verify.Verify(ctx, p.Name, p.Root, p.repo); err != nil {
			return nil, err
		}
	}
	done := &PulledImage{Name: p.Name, ID: p.Config.Digest, Digest: p.Root.Digest, UpToDate: p.UpToDate}
	if !p.UpToDate {
		was, err := t.bring(ctx, p, b)
		if err != nil {
			if p.Stale = p.instead(err); p.Stale != nil && ctx.Err() == nil {
				return t.useStale(p, b), nil
			}
			return nil, err
		}
		done.UpToDate = was == p.Config.Digest
	}
	b.status("", "Digest: "+string(p.Root.Digest))
	if p.Age > 0 {
		b.status("", fmt.Sprintf("Note: %s answered from its cache, %s old", p.From, age(p.Age)))
	}
	t.cfg.Images.Emit(image.Event{Action: "pull", ID: p.Name.Familiar(), Name: p.Name.FamiliarName()})
	return done, nil
}

func (t *Transfer) useStale(p *PullImage, b *board) *PulledImage {
	s := p.Stale
	t.log.Warn("registry cannot be asked; the image that is here is used", "image", p.Name.Familiar(), "age", s.Age, "err", s.Err)
	b.status("", fmt.Sprintf("WARNING: %v", s.Err))
	if s.Digest != "" {
		b.status("", "Digest: "+string(s.Digest))
	}
	return &PulledImage{Name: p.Name, ID: s.ID, Digest: s.Digest, UpToDate: true, Stale: max(s.Age, 1)}
}

// bring fetches what is missing and registers the image. It tells which image had the name.
func (t *Transfer) bring(ctx context.Context, p *PullImage, b *board) (was digest.Digest, err error) {
	if old, err := t.cfg.Images.Resolve(p.Name.String()); err == nil {
		was = digest.Digest(old.ID)
	}
	hold := t.cfg.Images.Hold()
	defer hold.Release()
	var extra []image.Attached
	var wg sync.WaitGroup
	beside, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { extra = t.attestations(beside, p) })
	aboard, err := t.fetch(ctx, p, b, hold)
	defer leaveAll(aboard)
	if err != nil {
		stop()
		wg.Wait()
		return "", err
	}
	grace := time.AfterFunc(attestationGrace, stop)
	wg.Wait()
	grace.Stop()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := failpoint.Hit("transfer/before-commit"); err != nil {
		return "", err
	}
	if err := t.commit(p, aboard, hold, b); err != nil {
		return "", err
	}
	if err := failpoint.Hit("transfer/before-name"); err != nil {
		return "", err
	}
	return was, t.register(ctx, p, aboard, extra)
}

// attestationGrace is how long a pull that has all its layers waits for what it can do without.
const attestationGrace = 10 * time.Second

// passenger is a layer of an image on its flight.
type passenger struct {
	f *flight
	w *watcher
}

func leaveAll(list []passenger) {
	for _, x := range list {
		x.f.leave(x.w)
	}
}

// fetch gets all layers staged that are not here, and holds those that are. It gives the flights, to be left
// by the caller, also together with an error.
func (t *Transfer) fetch(ctx context.Context, p *PullImage, b *board, hold *image.Hold) (aboard []passenger, err error) {
	for i := range p.Layers {
		l := &p.Layers[i]
		if l.Do == Here && (hold.Layers(l.DiffID) != nil || !t.good(l)) {
			l.Do = Fetch // gone, or another one, since the plan was made
		}
		switch l.Do {
		case Here:
			b.status(short(l.Digest), "Already exists")
		case Fetch, Remote:
			b.status(short(l.Digest), "Pulling fs layer")
		}
	}
	if err := t.addLazy(ctx, p, b, hold); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // guards aboard and err
	var wg sync.WaitGroup
	for _, l := range p.Layers {
		if l.Do != Fetch {
			continue
		}
		// Joined here and not in the goroutine: flights start in the order of the layers, and the waiting room keeps it.
		x := passenger{w: &watcher{board: b, id: short(l.Digest)}}
		x.f = t.join(p.repo, l.Descriptor, l.DiffID, x.w)
		wg.Go(func() {
			x, ferr := t.ride(ctx, x, p, l)
			mu.Lock()
			defer mu.Unlock()
			aboard = append(aboard, x)
			if ferr != nil && err == nil {
				err = ferr
				cancel()
			}
		})
	}
	wg.Wait()
	return aboard, err
}

// ride waits for a layer. A flight from somebody else's repository that fails is no verdict on ours.
func (t *Transfer) ride(ctx context.Context, x passenger, p *PullImage, l PullLayer) (passenger, error) {
	const tries = 3
	for n := 1; ; n++ {
		err := x.f.wait(ctx)
		if err == nil || ctx.Err() != nil || x.f.repo == p.repo || n == tries {
			return x, err
		}
		x.f.leave(x.w)
		x.f = t.join(p.repo, l.Descriptor, l.DiffID, x.w)
	}
}

// commit makes all staged layers part of the store with one sync, and has them held.
func (t *Transfer) commit(p *PullImage, aboard []passenger, hold *image.Hold, b *board) error {
	var staged []*layer.Staged
	var ids []digest.Digest
	for _, x := range aboard {
		staged = append(staged, x.f.staged)
		ids = append(ids, x.f.key.diffID)
	}
	if err := t.cfg.Images.Layers().Commit(staged...); err != nil {
		return err
	}
	for _, x := range aboard {
		x.f.pin()
	}
	if err := hold.AdoptLayers(ids...); err != nil {
		return err
	}
	for _, l := range p.Layers {
		if l.Do == Fetch {
			b.status(short(l.Digest), "Pull complete")
		}
	}
	return nil
}

// register makes the image and gives it its names.
func (t *Transfer) register(ctx context.Context, p *PullImage, aboard []passenger, extra []image.Attached) error {
	n := image.Registration{
		Config: p.rawConfig, Manifest: attached(p.manifest.desc, p.manifest.raw), Documents: extra,
		Names: p.Names, Sources: p.sources(),
	}
	if p.root != p.manifest {
		n.Index = attached(p.root.desc, p.root.raw)
	}
	for _, d := range p.inner {
		n.Documents = append(n.Documents, *attached(d.desc, d.raw))
	}
	for _, x := range aboard {
		if x.f.kept {
			n.Blobs = append(n.Blobs, x.f.d.Digest)
		}
	}
	_, _, err := t.cfg.Images.Register(ctx, n)
	return err
}

// attestations reads what BuildKit put beside the image. The image is good without: what cannot be had is only logged.
func (t *Transfer) attestations(ctx context.Context, p *PullImage) (list []image.Attached) {
	left := int64(attestationMax)
	for _, d := range p.Attestations {
		docs, err := t.attestation(ctx, p, d, &left)
		if err != nil {
			t.log.Info("attestation is not kept", "image", p.Name.Familiar(), "attestation", d.Digest, "err", err)
			continue
		}
		list = append(list, docs...)
	}
	return list
}

func (t *Transfer) attestation(ctx context.Context, p *PullImage, d ocispec.Descriptor, left *int64) (list []image.Attached, err error) {
	doc, err := t.member(ctx, p, d)
	if err != nil {
		return nil, err
	}
	if doc.Manifests != nil {
		return nil, fault.New(fault.Invalid, "manifest %s is an index", d.Digest)
	}
	list = append(list, *attached(doc.desc, doc.raw))
	for _, part := range append([]ocispec.Descriptor{*doc.Config}, doc.Layers...) {
		if *left -= part.Size; *left < 0 {
			return nil, fault.New(fault.Invalid, "the attestations have more than %d bytes", attestationMax)
		}
		raw, err := t.readConfig(ctx, p.repo, part)
		if err != nil {
			return nil, err
		}
		list = append(list, *attached(part, raw))
	}
	return list, nil
}

// age says how long ago something was, as people do.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return plural(int(d.Seconds()), "second")
	case d < time.Hour:
		return plural(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return plural(int(d.Hours()), "hour")
	}
	return plural(int(d.Hours()/24), "day")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
