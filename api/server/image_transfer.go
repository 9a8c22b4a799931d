package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/image"
)

// transfers are the verbs that bring images in and out as archives.
type transfers interface {
	Load(ctx context.Context, r io.Reader, o image.LoadOptions) ([]image.Loaded, error)
	Import(ctx context.Context, r io.Reader, o image.ImportOptions) (string, error)
	Save(ctx context.Context, w io.Writer, names []string, platform *image.Platform) error
}

// imageLoad reads an archive from the request's body and tells about it line by line.
func imageLoad(s *Server, c *call) error {
	want, err := c.platform("platform", 48)
	if err != nil {
		return err
	}
	o := image.LoadOptions{Platform: stored(want)}
	out := &lines{c: c}
	if !c.flagOr("quiet", true) {
		o.Progress = func(p image.Progress) {
			out.write(message{Status: p.Action, ID: p.ID, Detail: &detail{p.Current, p.Total}})
		}
	}
	loaded, err := s.cfg.Images.Load(c.ctx(), c.r.Body, o)
	for _, l := range loaded {
		for _, text := range l.Messages() {
			out.write(message{Stream: text + "\n"})
		}
	}
	return out.end(err)
}

// imageCreate makes an image of a file system in a tar. Docker's other half of this route, pulling, is not in this build.
func imageCreate(s *Server, c *call) error {
	if name := c.text("fromImage"); name != "" {
		return fault.New(fault.NotImplemented, "pulling images is not in this build of Berth: load %s from an archive (docker load), or import a file system (docker import)", name)
	}
	switch source := c.text("fromSrc"); source {
	case "-":
	case "":
		return fault.New(fault.Invalid, "fromSrc is missing: \"-\" imports what the request's body holds")
	default:
		return fault.New(fault.NotImplemented, "importing from %s is not in this build of Berth: download it and use fromSrc=-", source)
	}
	name, err := c.reference()
	if err != nil {
		return err
	}
	o := image.ImportOptions{Ref: name, Changes: c.q["changes"], Message: c.text("message")}
	if text := c.text("platform"); text != "" && c.v >= 32 {
		if _, err := platforms.Parse(text); err != nil {
			return fault.Wrap(fault.Invalid, err, "")
		}
		o.Platform = text
	}
	out := &lines{c: c}
	id, err := s.cfg.Images.Import(c.ctx(), c.r.Body, o)
	if err == nil {
		out.write(message{Status: id})
	}
	return out.end(err)
}

// imageSave sends images as one tar, with a status once the first byte is there.
func imageSave(s *Server, c *call) error {
	names := c.q["names"]
	if c.name != "" {
		names = []string{c.name}
	}
	if len(names) == 0 {
		return fault.New(fault.Invalid, "names is missing: which images?")
	}
	want, err := c.platform("platform", 48)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/x-tar")
	return s.cfg.Images.Save(c.ctx(), lateStatus{c}, names, stored(want))
}

// stored gives a platform as the image store has it.
func stored(p *ocispec.Platform) *image.Platform {
	if p == nil {
		return nil
	}
	return &image.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}

// lateStatus sends status 200 with the first byte, so that what goes wrong before has a status of its own.
type lateStatus struct{ c *call }

func (l lateStatus) Write(p []byte) (int, error) {
	if !l.c.began {
		l.c.begin(http.StatusOK)
	}
	return l.c.w.Write(p)
}

// message is one line of a progress stream, as Docker's jsonstream.Message with the old form of errors beside it.
type message struct {
	Stream string  `json:"stream,omitempty"`
	Status string  `json:"status,omitempty"`
	Detail *detail `json:"progressDetail,omitempty"`
	ID     string  `json:"id,omitempty"`
	Error  *failed `json:"errorDetail,omitempty"`
	Text   string  `json:"error,omitempty"`
}

type detail struct {
	Current int64 `json:"current,omitempty"`
	Total   int64 `json:"total,omitempty"`
}

type failed struct {
	Message string `json:"message"`
}

// lines writes a progress stream: one JSON text a line, at once.
type lines struct{ c *call }

func (l *lines) write(m message) {
	if !l.c.began {
		l.c.w.Header().Set("Content-Type", "application/json")
		l.c.begin(http.StatusOK)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return // it has only texts and numbers
	}
	_, _ = l.c.w.Write(append(b, '\r', '\n'))
	_ = http.NewResponseController(l.c.w).Flush()
}

// end says how it went: an error has a status while none was sent, and is a line of the stream after that.
func (l *lines) end(err error) error {
	if err != nil && l.c.began {
		l.write(message{Error: &failed{err.Error()}, Text: err.Error()})
		return nil
	}
	if err == nil && !l.c.began {
		l.c.w.Header().Set("Content-Type", "application/json")
		return l.c.done(http.StatusOK)
	}
	return err
}
