package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// Problem is something that Check has found.
type Problem struct {
	Repository string // "" when it concerns content only
	What       string // for people
}

// String gives one line.
func (p Problem) String() string {
	if p.Repository == "" {
		return p.What
	}
	return p.Repository + ": " + p.What
}

// Look says how Check looks.
type Look struct {
	Content bool // read every blob and compare its digest
	// Repair mends what can be: content that has another digest than its name is removed, so that the next push brings it again instead of
	// being told that it is there; referrers' entries are written that are missing.
	Repair bool
}

// Checked says what Check has looked at and found.
type Checked struct {
	Repositories, Tags, Manifests, Blobs int
	Bytes                                int64 // read and hashed
	Repaired                             int   // of the problems
	Problems                             []Problem
}

// Check looks whether every name leads to what it stands for: tags to manifests, manifests to all that they name, referrers both ways,
// links to blobs. It runs while the registry serves; what looks wrong in
// passing is looked at again while nothing changes in the repository.
func (s *Store) Check(ctx context.Context, how Look) (*Checked, error) {
	var c Checked
	strays, err := s.strays(ctx)
	if err != nil {
		return nil, err
	}
	for _, repo := range strays {
		c.Problems = append(c.Problems, Problem{Repository: repo, What: "it has content and no name"})
		if !how.Repair {
			continue
		}
		if err := s.adopt(ctx, repo); err != nil {
			return nil, err
		}
		c.Repaired++
	}
	names, err := s.Repositories(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, repo := range names {
		look := &inspection{store: s, repo: repo}
		if err := look.all(ctx); err != nil {
			return nil, err
		}
		if len(look.problems) > 0 {
			look = &inspection{store: s, repo: repo, repair: how.Repair}
			if err := look.alone(ctx); err != nil {
				return nil, err
			}
		}
		c.Repositories++
		c.Tags += look.tags
		c.Manifests += look.manifests
		c.Repaired += look.repaired
		c.Problems = append(c.Problems, look.problems...)
	}
	return &c, s.checkBlobs(ctx, &c, how)
}

// checkBlobs compares every blob with its digest.
func (s *Store) checkBlobs(ctx context.Context, c *Checked, how Look) error {
	for e, err := range s.driver.List(ctx, blobsKey) {
		if err != nil {
			return err
		}
		c.Blobs++
		d, err := keyDigest(e.Key)
		if err != nil {
			c.Problems = append(c.Problems, Problem{What: e.Key + " is named by no digest"})
			continue
		}
		if !how.Content {
			continue
		}
		got, n, err := s.hash(ctx, d)
		c.Bytes += n
		switch {
		case fault.Is(err, fault.NotFound): // collected meanwhile
		case err != nil:
			return err
		case got != d:
			c.Problems = append(c.Problems, Problem{What: fmt.Sprintf("blob %s has the content of %s", d, got)})
			if how.Repair {
				if err := s.driver.Remove(ctx, blobKey(d)); err != nil {
					return err
				}
				c.Repaired++
			}
		}
	}
	return nil
}

func (s *Store) hash(ctx context.Context, d digest.Digest) (digest.Digest, int64, error) {
	b, err := s.driver.Open(ctx, blobKey(d))
	if err != nil {
		return "", 0, err
	}
	defer b.Body.Close()
	h := d.Algorithm().Hash()
	n, err := io.CopyBuffer(h, b.Body, make([]byte, 1<<20))
	return digest.NewDigest(d.Algorithm(), h), n, err
}

// inspection looks at one repository.
type inspection struct {
	store           *Store
	repo            string
	repair          bool
	tags, manifests int
	repaired        int
	problems        []Problem
}

func (i *inspection) alone(ctx context.Context) error {
	defer i.store.turns.alone(i.repo)()
	return i.all(ctx)
}

func (i *inspection) problem(format string, args ...any) {
	i.problems = append(i.problems, Problem{Repository: i.repo, What: fmt.Sprintf(format, args...)})
}

func (i *inspection) all(ctx context.Context) error {
	for _, look := range []func(context.Context) error{i.tagsLead, i.manifestsAreWhole, i.linksLead, i.referrersAgree} {
		if err := look(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (i *inspection) tagsLead(ctx context.Context) error {
	for t, err := range i.store.tags(ctx, i.repo) {
		if err != nil {
			return err
		}
		i.tags++
		ok, err := i.store.has(ctx, recordKey(i.repo, t.Digest))
		if err != nil {
			return err
		}
		if !ok {
			i.problem("tag %s stands for manifest %s, which is not there", t.Name, t.Digest)
		}
	}
	return nil
}

func (i *inspection) manifestsAreWhole(ctx context.Context) error {
	for r, err := range i.store.records(ctx, i.repo) {
		if err != nil {
			return err
		}
		i.manifests++
		if err := i.manifest(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (i *inspection) manifest(ctx context.Context, r Record) error {
	content, err := i.store.driver.Read(ctx, blobKey(r.Digest))
	if fault.Is(err, fault.NotFound) {
		i.problem("manifest %s has no content", r.Digest)
		return nil
	}
	if err != nil {
		return err
	}
	if got := r.Digest.Algorithm().FromBytes(content); got != r.Digest {
		i.problem("manifest %s has the content of %s", r.Digest, got)
		return nil
	}
	doc, err := Parse(r.MediaType, content)
	if err != nil {
		i.problem("manifest %s: %v", r.Digest, err)
		return nil
	}
	var missing *MissingError
	err = i.store.complete(ctx, i.repo, doc, i.store.looksHeld)
	if errors.As(err, &missing) {
		i.problem("manifest %s: %v", r.Digest, missing)
		return nil
	}
	if err != nil {
		return err
	}
	if want := doc.record(r.Digest, r.Size); !slices.Equal(want.Blobs, r.Blobs) || !slices.Equal(want.Manifests, r.Manifests) || want.Subject != r.Subject {
		i.problem("the record of manifest %s does not say what the manifest says", r.Digest)
	}
	if doc.Subject == nil {
		return nil
	}
	key := referrerKey(i.repo, doc.Subject.Digest, r.Digest)
	ok, err := i.store.has(ctx, key)
	if err != nil || ok {
		return err
	}
	i.problem("manifest %s is not among the referrers of %s", r.Digest, doc.Subject.Digest)
	if !i.repair {
		return nil
	}
	i.repaired++
	return i.store.writeJSON(ctx, key, doc.referrer(r))
}

func (i *inspection) linksLead(ctx context.Context) error {
	for e, err := range i.store.driver.List(ctx, repoKey(i.repo, "blobs")) {
		if err != nil {
			return err
		}
		d, err := keyDigest(e.Key)
		if err != nil {
			i.problem("%s is named by no digest", e.Key)
			continue
		}
		var l link
		if err := i.store.readJSON(ctx, e.Key, &l); fault.Is(err, fault.NotFound) {
			continue
		} else if err != nil {
			i.problem("%v", err)
			continue
		}
		blob, err := i.store.driver.Stat(ctx, blobKey(d))
		switch {
		case fault.Is(err, fault.NotFound):
			i.problem("blob %s is not there", d)
		case err != nil:
			return err
		case blob.Size != l.Size:
			i.problem("blob %s has %d bytes, %d were pushed", d, blob.Size, l.Size)
		}
	}
	return nil
}

func (i *inspection) referrersAgree(ctx context.Context) error {
	for e, err := range i.store.driver.List(ctx, repoKey(i.repo, "referrers")) {
		if err != nil {
			return err
		}
		var desc ocispec.Descriptor
		if err := i.store.readJSON(ctx, e.Key, &desc); fault.Is(err, fault.NotFound) {
			continue
		} else if err != nil {
			i.problem("%v", err)
			continue
		}
		if !strings.HasSuffix(e.Key, desc.Digest.Encoded()) {
			i.problem("%s describes %s", e.Key, desc.Digest)
		}
	}
	return nil
}
