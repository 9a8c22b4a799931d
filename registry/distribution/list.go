package distribution

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/registry/access"
	"berth/registry/storage"
)

const (
	catalogPage = 1000  // without n=, and the most
	tagsPage    = 10000 // the most that n= gives; without it all are given, as the specification wants
)

func (c *call) tags() error {
	if err := c.method(http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	if err := c.may(access.Pull); err != nil {
		return err
	}
	names, err := c.cfg.Storage.Tags(c.r.Context(), c.repo)
	if err != nil {
		return nameUnknown(err)
	}
	names, err = c.page(names, len(names), tagsPage)
	if err != nil {
		return err
	}
	c.json(http.StatusOK, struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{c.repo, names})
	return nil
}

// catalog lists the repositories that the caller may pull from.
func (c *call) catalog() error {
	if err := c.method(http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	s, err := c.cfg.Who(c.r)
	if err != nil {
		return c.denied(err, "")
	}
	c.subject = s
	all, err := c.cfg.Storage.Repositories(c.r.Context(), "")
	if err != nil {
		return err
	}
	names := make([]string, 0, len(all))
	for _, n := range all {
		if c.mayPull(n) {
			names = append(names, n)
		}
	}
	if names, err = c.page(names, catalogPage, catalogPage); err != nil {
		return err
	}
	c.json(http.StatusOK, struct {
		Repositories []string `json:"repositories"`
	}{names})
	return nil
}

// page cuts what the client asked for out of a sorted list, and says in a Link header where the rest is.
func (c *call) page(sorted []string, standard, most int) ([]string, error) {
	q := c.r.URL.Query()
	n := standard
	if s := q.Get("n"); s != "" {
		wanted, err := strconv.Atoi(s)
		if err != nil || wanted < 0 {
			return nil, &apiError{status: http.StatusBadRequest, code: "UNSUPPORTED", message: "invalid number of results requested", detail: map[string]string{"n": s}}
		}
		n = min(wanted, most)
	}
	if last := q.Get("last"); last != "" {
		at, found := slices.BinarySearch(sorted, last)
		if found {
			at++
		}
		sorted = sorted[at:]
	}
	if len(sorted) <= n {
		return sorted, nil
	}
	sorted = sorted[:n]
	if n > 0 {
		next := url.Values{"n": {strconv.Itoa(n)}, "last": {sorted[n-1]}}
		c.w.Header().Set("Link", "<"+c.r.URL.Path+"?"+next.Encode()+`>; rel="next"`)
	}
	return sorted, nil
}

func (c *call) referrers(reference string) error {
	if err := c.method(http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	if err := c.may(access.Pull); err != nil {
		return err
	}
	d, err := storage.ParseDigest(reference)
	if err != nil {
		return digestInvalid(err)
	}
	kind := c.r.URL.Query().Get("artifactType")
	found, err := c.cfg.Storage.Referrers(c.r.Context(), c.repo, d, kind)
	if err != nil {
		return err
	}
	if kind != "" {
		c.w.Header().Set("Oci-Filters-Applied", "artifactType")
	}
	c.w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: c.referrersPage(found)}
	index.SchemaVersion = 2
	c.json(http.StatusOK, index)
	return nil
}

// referrersPage cuts a list to what fits into an index that clients read, and says in a Link header where the rest is.
func (c *call) referrersPage(sorted []ocispec.Descriptor) []ocispec.Descriptor {
	q := c.r.URL.Query()
	if last := q.Get("last"); last != "" {
		sorted = slices.DeleteFunc(sorted, func(d ocispec.Descriptor) bool { return d.Digest.String() <= last })
	}
	size := 0
	for i, d := range sorted {
		data, err := json.Marshal(d)
		if err != nil {
			continue
		}
		if size += len(data) + 1; size < storage.MaxManifest-1024 || i == 0 {
			continue
		}
		next := url.Values{"last": {sorted[i-1].Digest.String()}}
		if kind := q.Get("artifactType"); kind != "" {
			next.Set("artifactType", kind)
		}
		c.w.Header().Set("Link", "<"+c.r.URL.Path+"?"+next.Encode()+`>; rel="next"`)
		return sorted[:i]
	}
	return sorted
}
