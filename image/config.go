package image

import (
	"bytes"
	"encoding/json"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// maxDocument bounds the documents that are read into memory: configurations, manifests, indexes.
const maxDocument = 16 << 20

// Document is an image's configuration, as the OCI image spec and Docker have it. Unknown fields are kept in the
// blob, which is what the id is the digest of.
type Document struct {
	Created *time.Time `json:"created,omitempty"`
	Author  string     `json:"author,omitempty"`
	Platform
	Config        RunConfig     `json:"config"`
	RootFS        RootFS        `json:"rootfs"`
	History       []HistoryLine `json:"history,omitempty"`
	Comment       string        `json:"comment,omitempty"`
	Container     string        `json:"container,omitempty"`
	DockerVersion string        `json:"docker_version,omitempty"`
}

// Platform is what an image runs on.
type Platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

// RunConfig is what a container gets from its image unless told otherwise.
type RunConfig struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	StopTimeout  *int                `json:"StopTimeout,omitempty"`
	ArgsEscaped  bool                `json:"ArgsEscaped,omitempty"`
	Healthcheck  *Healthcheck        `json:"Healthcheck,omitempty"`
	OnBuild      []string            `json:"OnBuild,omitempty"`
	Shell        []string            `json:"Shell,omitempty"`
}

// Healthcheck says how to find out whether a container is well. Durations are nanoseconds; zero inherits.
type Healthcheck struct {
	Test          []string      `json:"Test,omitempty"`
	Interval      time.Duration `json:"Interval,omitempty"`
	Timeout       time.Duration `json:"Timeout,omitempty"`
	StartPeriod   time.Duration `json:"StartPeriod,omitempty"`
	StartInterval time.Duration `json:"StartInterval,omitempty"`
	Retries       int           `json:"Retries,omitempty"`
}

// RootFS names the layers.
type RootFS struct {
	Type    string          `json:"type"`
	DiffIDs []digest.Digest `json:"diff_ids"`
}

// HistoryLine is one step of how the image was made.
type HistoryLine struct {
	Created    *time.Time `json:"created,omitempty"`
	Author     string     `json:"author,omitempty"`
	CreatedBy  string     `json:"created_by,omitempty"`
	Comment    string     `json:"comment,omitempty"`
	EmptyLayer bool       `json:"empty_layer,omitempty"`
}

// ParseDocument reads and checks a configuration document from outside. Errors are Invalid.
func ParseDocument(b []byte) (*Document, error) {
	if len(b) > maxDocument {
		return nil, fault.New(fault.Invalid, "invalid image JSON: %d bytes, more than %d", len(b), maxDocument)
	}
	var d struct {
		Document
		RootFS *RootFS `json:"rootfs"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&d); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "invalid image JSON")
	}
	if d.RootFS == nil {
		return nil, fault.New(fault.Invalid, "invalid image JSON, no RootFS key")
	}
	d.Document.RootFS = *d.RootFS
	for _, id := range d.RootFS.DiffIDs {
		if err := id.Validate(); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "invalid image JSON: diff id %q", id)
		}
		if a := id.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
			return nil, fault.New(fault.Invalid, "invalid image JSON: diff id %q is neither sha256 nor sha512", id)
		}
	}
	return &d.Document, nil
}

// system is the operating system the image is for; very old images do not say.
func (d *Document) system() string {
	if d.OS == "" {
		return runtime.GOOS
	}
	return d.OS
}

// clone copies a RunConfig deeply, so that changes to the copy reach nothing else.
func (c *RunConfig) clone() RunConfig {
	var out RunConfig
	b, err := json.Marshal(c)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		panic("image: a RunConfig does not survive JSON: " + err.Error())
	}
	return out
}
