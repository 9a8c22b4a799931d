package storage

import (
	"bytes"
	"encoding/json"
	"strings"

	"berth/base/fault"
)

// spelling is how the fields of a manifest are written, by their folded names.
var spelling = map[string]string{
	"schemaversion": "schemaVersion", "mediatype": "mediaType", "artifacttype": "artifactType", "config": "config", "layers": "layers", "blobs": "blobs",
	"manifests": "manifests", "fslayers": "fsLayers", "subject": "subject", "annotations": "annotations",
}

// ambiguous refuses a document that says one thing twice, also in another case: of two programs that read it, one takes the first and the other
// the last, and what the registry holds, counts and checks would not be what a client gets (CVE-2021-41190 and its kin). Annotations are people's
// own words, of which two may differ in their case. The document is well formed.
func ambiguous(content []byte) error {
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	var names []map[string]string // of the objects around, folded to as written; nil: an array
	own := 0                      // how many of them are annotations or lie in some
	key := ""                     // what the next value is called
	name := false                 // the next text is a name
	for d.More() || len(names) > 0 {
		t, err := d.Token()
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "manifest is no JSON")
		}
		switch v := t.(type) {
		case json.Delim:
			switch v {
			case '{', '[':
				var seen map[string]string
				if v == '{' {
					seen = map[string]string{}
				}
				names = append(names, seen)
				if own > 0 || strings.EqualFold(key, "annotations") {
					own++
				}
			default:
				names = names[:len(names)-1]
				own = max(own-1, 0)
			}
			key = ""
		case string:
			if !name {
				break
			}
			seen, fold := names[len(names)-1], strings.ToLower(strings.ToUpper(v)) // "ſ" is an s to encoding/json
			if right, known := spelling[fold]; known && len(names) == 1 && v != right {
				return fault.New(fault.Invalid, "manifest says %q, not %q", shorten(v), right) // who minds the case does not see it
			}
			if was, twice := seen[fold]; twice && (own == 0 || was == v) {
				return fault.New(fault.Invalid, "manifest says %q and %q", shorten(was), shorten(v))
			}
			seen[fold], key, name = v, v, false
			continue
		}
		name = len(names) > 0 && names[len(names)-1] != nil
	}
	return nil
}
