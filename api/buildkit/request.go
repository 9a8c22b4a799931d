package buildkit

import (
	"maps"
	"strings"

	"github.com/containerd/containerd/v2/pkg/filters"
	controlapi "github.com/moby/buildkit/api/services/control"

	"berth/base/fault"
	"berth/build"
)

// compatibility is the version of what BuildKit makes of a request, media types and file modes, that is made here: that of the releases since 0.31.
const compatibility = 30

// requestOf translates a request, old ways to say things too.
func requestOf(r *controlapi.SolveRequest) (build.Request, error) {
	out := build.Request{
		ID: r.Ref, Session: r.Session, Frontend: r.Frontend, FrontendAttrs: r.FrontendAttrs, FrontendInputs: r.FrontendInputs,
		Definition: r.Definition, SessionExporter: r.EnableSessionExporter, Entitlements: r.Entitlements, SourcePolicy: r.SourcePolicy,
		PolicySession: r.SourcePolicySession, ProxyNetwork: r.ProxyNetwork, Internal: r.Internal,
	}
	// It promises the bytes that BuildKit of old made: whoever asks for those must not get others.
	if v := r.CompatibilityVersion; v != 0 && v != compatibility {
		return out, fault.New(fault.Invalid, "unsupported compatibility-version %d (supported: [%d])", v, compatibility)
	}
	if out.Definition != nil && len(out.Definition.Def) == 0 && r.Frontend != "" {
		out.Definition = nil
	}
	for _, e := range r.Exporters {
		if e == nil {
			return out, fault.New(fault.Invalid, "invalid nil exporter")
		}
		out.Exporters = append(out.Exporters, build.Exporter{Type: e.Type, Attrs: e.Attrs})
	}
	if len(r.Exporters) == 0 && r.ExporterDeprecated != "" {
		out.Exporters = append(out.Exporters, build.Exporter{Type: r.ExporterDeprecated, Attrs: r.ExporterAttrsDeprecated})
	}
	var err error
	out.CacheImports, out.CacheExports, err = cachesOf(r.Cache)
	return out, err
}

// cachesOf translates the caches of a request. Two exports that say the same are an error, as it is surely none that is meant.
func cachesOf(c *controlapi.CacheOptions) (imports, exports []build.Cache, err error) {
	if c == nil {
		return nil, nil, nil
	}
	for _, e := range c.Imports {
		if e != nil {
			imports = append(imports, build.Cache{Type: e.Type, Attrs: e.Attrs})
		}
	}
	for _, ref := range c.ImportRefsDeprecated {
		imports = append(imports, build.Cache{Type: "registry", Attrs: map[string]string{"ref": ref}})
	}
	for _, e := range c.Exports {
		if e == nil {
			return nil, nil, fault.New(fault.Invalid, "invalid nil cache export")
		}
		exports = append(exports, build.Cache{Type: e.Type, Attrs: e.Attrs})
	}
	if c.ExportRefDeprecated != "" {
		attrs := map[string]string{}
		maps.Copy(attrs, c.ExportAttrsDeprecated)
		attrs["ref"] = c.ExportRefDeprecated
		exports = append(exports, build.Cache{Type: "registry", Attrs: attrs})
	}
	for i, a := range exports {
		for _, b := range exports[:i] {
			if a.Type == b.Type && maps.Equal(a.Attrs, b.Attrs) {
				return nil, nil, fault.New(fault.Invalid, "duplicate cache exports [%s]", a.Type)
			}
		}
	}
	return imports, exports, nil
}

// filterWorker reports whether the worker passes the filters of a request: id, labels.
func filterWorker(list []string, w build.Worker) (bool, error) {
	f, err := filters.ParseAll(list...)
	if err != nil {
		return false, fault.Wrap(fault.Invalid, err, "worker filters")
	}
	return f.Match(filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 0 {
			return "", false
		}
		switch path[0] {
		case "id":
			return w.ID, true
		case "labels":
			v, ok := w.Labels[strings.Join(path[1:], ".")]
			return v, ok
		}
		return "", false
	})), nil
}

// dockerfileVersion is the language's version. BuildKit's library calls it a development version when nobody told it
// at link time which release it is of.
func dockerfileVersion(v string) string { return strings.TrimSuffix(v, "-dev") }
