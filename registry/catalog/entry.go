package catalog

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// library is where Docker Hub keeps its official images: people write tomcat and mean library/tomcat.
const library = "library/"

// Entry is all that is known of one repository beyond its content. It is a value; its slices and maps are
// never changed after it was made.
type Entry struct {
	Name  string `json:"name"`            // path in the registry: library/tomcat
	Short string `json:"short,omitempty"` // one line: what a person wrote, else the image's own label
	Long  string `json:"long,omitempty"`  // Markdown, from a person

	Official bool `json:"official"` // said by an administrator; without his word what lies under library/

	Stars    int       `json:"stars"`
	Pulls    uint64    `json:"pulls"`  // manifests fetched
	Pushes   uint64    `json:"pushes"` // manifests and tags put
	LastPush time.Time `json:"last_push,omitzero"`

	Derived
}

// Derived is what was read from a repository's content.
type Derived struct {
	Tags      []string          `json:"tags,omitempty"`      // newest push first
	Newest    Image             `json:"newest,omitzero"`     // what labels and platforms are from
	Labels    map[string]string `json:"labels,omitempty"`    // of the newest image: config labels and annotations
	Platforms []string          `json:"platforms,omitempty"` // linux/amd64, linux/arm64/v8
	Kind      string            `json:"kind,omitempty"`      // image, or the artifact type of what is no image
	Certified string            `json:"certified,omitempty"` // policy under which the newest image is signed; "": none
	Size      int64             `json:"size,omitempty"`      // bytes of the newest image as it is transferred, one platform
	Partial   bool              `json:"partial,omitempty"`   // the newest image's config is not here yet: a copy of a mirrored one
}

// Image names one image of a repository.
type Image struct {
	Tag    string        `json:"tag,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
	Pushed time.Time     `json:"pushed,omitzero"`
}

// Shown is the name that people see and type: without library/.
func (e Entry) Shown() string { return Shown(e.Name) }

// Shown gives a repository's name as people see it: library/tomcat is tomcat.
func Shown(repository string) string {
	if rest, ok := strings.CutPrefix(repository, library); ok && rest != "" && !strings.Contains(rest, "/") {
		return rest
	}
	return repository
}

// Labels with a meaning that everybody shares (image-spec, annotations.md) and where a description is found
// when nobody has written one. Label Schema is what images had before.
var describing = []string{
	"org.opencontainers.image.description",
	"org.opencontainers.image.title",
	"org.label-schema.description",
	"org.label-schema.name",
	"description",
}

// describedBy gives the description that an image brings along, as one line of at most maxShort bytes.
func describedBy(labels map[string]string) string {
	for _, k := range describing {
		if line := oneLine(labels[k]); line != "" {
			return line
		}
	}
	return ""
}

// oneLine makes one line of a text from a stranger: no control characters, no runs of blanks, bounded.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "")), " ")
	s = strings.Map(printable, s)
	if len(s) > maxShort {
		s = strings.ToValidUTF8(s[:maxShort-len("…")], "") + "…"
	}
	return s
}

// printable drops what makes a terminal or a page lie: controls, and marks that turn the direction of text
// (Trojan Source, CVE-2021-42574).
func printable(r rune) rune {
	switch {
	case r < 0x20 || r >= 0x7f && r < 0xa0,
		r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0xfeff:
		return -1
	}
	return r
}

// Bounds of a description; those of Docker Hub are 100 characters and 25,000.
const (
	maxShort = 256
	maxLong  = 64 << 10
)

// Description is what a person writes of a repository.
type Description struct {
	Short string `json:"short"` // one line, at most 256 bytes
	Long  string `json:"long"`  // Markdown, at most 64 KiB
}

// check refuses a description that cannot be shown. Errors are Invalid.
func (d Description) check() error {
	switch {
	case !utf8.ValidString(d.Short) || !utf8.ValidString(d.Long):
		return fault.New(fault.Invalid, "a description must be UTF-8")
	case len(d.Short) > maxShort:
		return fault.New(fault.Invalid, "a short description has at most %d bytes, this one has %d", maxShort, len(d.Short))
	case len(d.Long) > maxLong:
		return fault.New(fault.Invalid, "a long description has at most %d bytes, this one has %d", maxLong, len(d.Long))
	case oneLine(d.Short) != strings.TrimSpace(d.Short):
		return fault.New(fault.Invalid, "a short description is one line of printable text")
	case strings.Map(printableText, d.Long) != d.Long:
		return fault.New(fault.Invalid, "a long description must not hold control characters")
	}
	return nil
}

// printableText is printable, for text of several lines.
func printableText(r rune) rune {
	if r == '\n' || r == '\r' || r == '\t' {
		return r
	}
	return printable(r)
}
