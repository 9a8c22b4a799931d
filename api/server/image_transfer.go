package server

import (
	"context"
	"io"
	"net/http"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/image"
)

// transfers are the verbs that bring images in and out as archives.
type transfers interface {
	Load(ctx context.Context, r io.Reader, o image.LoadOptions) ([]image.Loaded, error)
	Import(ctx context.Context, r io.Reader, o image.ImportOptions) (string, error)
	SaveWith(ctx context.Context, w io.Writer, names []string, o image.SaveOptions) error
}

// imageLoad reads an archive from the request's body and tells about it line by line.
func imageLoad(s *Server, c *call) error {
	want, err := c.platforms("platform", 48)
	if err != nil {
		return err
	}
	o := image.LoadOptions{Platforms: want}
	out := &lines{c: c}
	if !c.flagOr("quiet", true) {
		o.Progress = func(p image.Progress) {
			out.step(wire.Step{ID: p.ID, Status: p.Action, Current: p.Current, Total: p.Total})
		}
	}
	loaded, err := s.cfg.Images.Load(c.ctx(), c.r.Body, o)
	for _, l := range loaded {
		for _, text := range l.Messages() {
			out.write(wire.StreamLine(text + "\n"))
		}
	}
	return out.end(err)
}

// imageCreate pulls an image, or makes one of a file system in a tar.
func imageCreate(s *Server, c *call) error {
	if c.text("fromImage") != "" {
		return imagePull(s, c)
	}
	source := c.text("fromSrc")
	if source == "" {
		return fault.New(fault.Invalid, "fromSrc is missing: \"-\" imports what the request's body holds")
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
	if source != "-" {
		return s.importURL(c, source, o)
	}
	out := &lines{c: c}
	id, err := s.cfg.Images.Import(c.ctx(), c.r.Body, o)
	if err == nil {
		out.step(wire.Step{Status: id})
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
	want, err := c.platforms("platform", 48)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/x-tar")
	return s.cfg.Images.SaveWith(c.ctx(), lateStatus{c}, names, image.SaveOptions{Platforms: want})
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

// lines writes a progress stream: one JSON text a line, at once. It is for one goroutine at a time.
type lines struct {
	c    *call
	held []byte // see hold
}

// hold keeps a line back until another one follows. What fails before that has a status of its own: clients ask by 404 whether a
// repository has a tag.
func (l *lines) hold(line []byte) { l.held = line }

func (l *lines) write(line []byte) {
	if held := l.held; held != nil {
		l.held = nil
		l.write(held)
	}
	if !l.c.began {
		l.c.w.Header().Set("Content-Type", "application/json")
		l.c.begin(http.StatusOK)
	}
	_, _ = l.c.w.Write(append(line, '\r', '\n')) // a client that is gone ends the request's context
	_ = http.NewResponseController(l.c.w).Flush()
}

func (l *lines) step(p wire.Step) { l.write(wire.ProgressLine(p, l.c.v)) }

// end says how it went: an error has a status while none was sent, and is a line of the stream after that.
func (l *lines) end(err error) error {
	if err != nil && l.c.began {
		l.write(wire.ErrorLine(err))
		return nil
	}
	if held := l.held; held != nil && err == nil {
		l.held = nil
		l.write(held)
	}
	if err == nil && !l.c.began {
		l.c.w.Header().Set("Content-Type", "application/json")
		return l.c.done(http.StatusOK)
	}
	return err
}
