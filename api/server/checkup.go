package server

import (
	"cmp"
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"berth/base/checkup"
	"berth/base/fault"
	"berth/base/wait"
	"berth/image"
)

// Checker is a room that can verify what it keeps on disk, and with repair repair what can be derived or fetched again.
type Checker interface {
	CheckStore(ctx context.Context, repair bool) checkup.Room
}

// checkLine is one line of the answer to POST /berth/v1/system/check: a room, or the sum at the end.
type checkLine struct {
	*checkup.Room
	Sum   *checkSum `json:"sum,omitempty"`
	Error string    `json:"error,omitempty"` // instead of the sum: the check was cut short
}

type checkSum struct {
	Rooms    int `json:"rooms"`
	Damaged  int `json:"damaged"`
	Repaired int `json:"repaired"`
}

// systemCheck verifies the whole store, room by room, and with repair=1 repairs what it can.
func systemCheck(s *Server, c *call) error {
	creds, err := registryConfig(c.r.Header.Get("X-Registry-Config"))
	if err != nil {
		return err
	}
	tell := func(l checkLine) {
		if b, err := json.Marshal(l); err == nil {
			c.line(b)
		}
	}
	sum := &checkSum{}
	add := func(r checkup.Room) {
		r.Checked, r.Damages = nonNil(r.Checked), nonNil(r.Damages)
		sum.Rooms++
		for _, d := range r.Damages {
			sum.Damaged++
			if d.Repaired {
				sum.Repaired++
			}
		}
		tell(checkLine{Room: &r})
	}
	repair := c.flag("repair")
	// Images first: the layers of containers lie on them.
	if s.cfg.Images != nil {
		found, err := s.cfg.Images.Check(c.ctx())
		if err == nil && repair && len(found.Damages) > 0 {
			err = s.cfg.Images.Repair(c.ctx(), found, s.fetcher(creds))
		}
		if err != nil {
			tell(checkLine{Error: err.Error()})
			return nil
		}
		add(imagesRoom(found))
	}
	for _, room := range s.cfg.Checks {
		if err := c.ctx().Err(); err != nil {
			return nil // the client left
		}
		add(room.CheckStore(c.ctx(), repair))
	}
	tell(checkLine{Sum: sum})
	return nil
}

// imagesRoom puts what the image store found into the common words.
func imagesRoom(found *image.Checkup) checkup.Room {
	r := checkup.Room{Name: "images"}
	for _, n := range []checkup.Count{{What: "images", N: found.Images}, {What: "names", N: found.Names}, {What: "documents", N: found.Documents}, {What: "kept blobs", N: found.Kept}, {What: "layers", N: found.Layers}} {
		r.Count(n.What, n.N)
	}
	for _, d := range found.Damages {
		out := checkup.Damage{Subject: string(d.Part) + " " + d.Subject, What: d.What, Repaired: d.Repaired, Failed: d.Failed}
		if len(d.Images) > 0 {
			out.What += " (of " + strings.Join(d.Images, ", ") + ")"
		}
		switch {
		case d.Local:
			out.Repair = "made again from what is here"
		case len(d.Sources) > 0:
			out.Repair = "fetched again from " + cmp.Or(d.From, d.Sources[0].Repository)
		default:
			out.Advice = "no source is known: remove the image, and load or pull it again"
		}
		r.Damages = append(r.Damages, out)
	}
	return r
}

// waits lists what is under way in the engine for at least ?older, the longest first.
func waits(s *Server, c *call) error {
	atLeast := time.Duration(0)
	if text := c.text("older"); text != "" {
		d, err := time.ParseDuration(text)
		if seconds, serr := strconv.ParseFloat(text, 64); serr == nil {
			d, err = time.Duration(seconds*float64(time.Second)), nil
		}
		if err != nil || d < 0 {
			return fault.New(fault.Invalid, "older: %q is no span of time, as in 10s", text)
		}
		atLeast = d
	}
	return c.json(200, nonNil(s.cfg.Waits.List(atLeast)))
}

// waiting notes a request for as long as it takes. Streams go on until somebody leaves, and say nothing.
func (s *Server) waiting(c *call, to *route) *wait.Wait {
	if to.stream {
		return nil
	}
	return s.cfg.Waits.Begin(to.method+" "+to.path, c.name)
}
