package build

import (
	"berth/base/fault"
)

// Bounds on what one request may ask for, beside those of packages graph, solver and frontend. docs/building.md lists them all.
const (
	maxBuilds     = 1000    // under way at once, of all clients
	maxExporters  = 64      // of one build
	maxCaches     = 64      // imported by one build, and as many exported
	maxInputs     = 1000    // definitions that are given to a frontend
	maxAttributes = 10_000  // of a frontend, an exporter or a cache
	maxText       = 4 << 20 // bytes of all attributes together
	maxRules      = 10_000  // of a source policy
	maxName       = 1 << 10 // bytes of the name of a build or a session
)

// check refuses a request that asks for more than one build may.
func (r *Request) check() error {
	if len(r.ID) > maxName || len(r.Session) > maxName || len(r.PolicySession) > maxName {
		return fault.New(fault.Invalid, "the name of a build or a session has more than %d bytes", maxName)
	}
	for _, c := range []struct {
		n, most int
		what    string
	}{
		{len(r.Exporters), maxExporters, "outputs"},
		{len(r.CacheImports), maxCaches, "caches to import"},
		{len(r.CacheExports), maxCaches, "caches to export"},
		{len(r.FrontendInputs), maxInputs, "inputs of the frontend"},
		{len(r.Entitlements), maxAttributes, "entitlements"},
		{len(r.SourcePolicy.GetRules()), maxRules, "rules of the source policy"},
	} {
		if c.n > c.most {
			return fault.New(fault.Invalid, "the build has %d %s: more than %d", c.n, c.what, c.most)
		}
	}
	text := 0
	all := []map[string]string{r.FrontendAttrs}
	for _, e := range r.Exporters {
		all = append(all, e.Attrs)
	}
	for _, c := range r.CacheImports {
		all = append(all, c.Attrs)
	}
	for _, c := range r.CacheExports {
		all = append(all, c.Attrs)
	}
	for _, attrs := range all {
		if err := checkAttributes(attrs, &text); err != nil {
			return err
		}
	}
	return nil
}

// checkAttributes adds the bytes of attributes to text, and refuses too many.
func checkAttributes(attrs map[string]string, text *int) error {
	if len(attrs) > maxAttributes {
		return fault.New(fault.Invalid, "%d attributes: more than %d", len(attrs), maxAttributes)
	}
	for k, v := range attrs {
		*text += len(k) + len(v)
	}
	if *text > maxText {
		return fault.New(fault.Invalid, "the attributes of the build have more than %d bytes together", maxText)
	}
	return nil
}
