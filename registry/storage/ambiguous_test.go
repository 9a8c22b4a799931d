package storage

import (
	"strings"
	"testing"

	"berth/base/fault"
)

// One document must not be two things to two readers (CVE-2021-41190).
func TestManifestsOfTwoMinds(t *testing.T) {
	const config = `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}`
	const head = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":` + config
	for name, c := range map[string]struct {
		doc  string
		fine bool
	}{
		"an image and an index":       {head + `,"layers":[],"manifests":[]}`, false},
		"an index by name":            {strings.Replace(head, "image.manifest", "image.index", 1) + `,"layers":[]}`, false},
		"layers twice":                {head + `,"layers":[` + config + `],"layers":[]}`, false},
		"layers in two cases":         {head + `,"layers":[` + config + `],"Layers":[]}`, false},
		"layers by another spelling":  {head + `,"layers":[],"l\u0061yers":[` + config + `]}`, false},
		"layers with a long s":        {head + `,"layers":[],"layerſ":[` + config + `]}`, false},
		"layers for some alone":       {head + `,"Layers":[]}`, false},
		"media type twice":            {head + `,"layers":[],"MEDIATYPE":"application/vnd.oci.image.index.v1+json"}`, false},
		"a digest twice":              {head + `,"layers":[{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","Digest":"","size":2}]}`, false},
		"an annotation twice":         {head + `,"layers":[],"annotations":{"a":"1","a":"2"}}`, false},
		"annotations that differ":     {head + `,"layers":[],"annotations":{"a":"1","A":"2"}}`, true},
		"a layer's annotations, too":  {head + `,"layers":[{"annotations":{"a":"1","A":"2"},"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}]}`, true},
		"behind those it counts":      {head + `,"layers":[],"annotations":{"x":"1"},"Annotations":{"a":"1"}}`, false},
		"the same in different ones":  {head + `,"layers":[` + config + `,` + config + `]}`, true},
		"what is no name of anything": {head + `,"layers":[],"own":["layers","layers",{"layers":"layers"}]}`, true},
	} {
		if _, err := Parse("", []byte(c.doc)); c.fine && err != nil || !c.fine && fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
