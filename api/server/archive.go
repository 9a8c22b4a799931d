package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	containertypes "github.com/moby/moby/api/types/container"

	"berth/base/fault"
	"berth/engine"
	"berth/image/layer"
)

// copies are the verbs that bring files into containers and out of them.
type copies interface {
	StatPath(ctx context.Context, ref, name string) (engine.PathStat, error)
	CopyFrom(ctx context.Context, ref, name string, begin func(engine.PathStat) (io.Writer, error)) error
	CopyTo(ctx context.Context, ref, dir string, r io.Reader, o engine.CopyOptions) error
	Changes(ctx context.Context, ref string) ([]layer.Change, error)
	Export(ctx context.Context, ref string, w io.Writer) error
}

// pathHeader carries what a path is, in base64 of JSON.
const pathHeader = "X-Docker-Container-Path-Stat"

func pathStat(p engine.PathStat) (string, error) {
	b, err := json.Marshal(containertypes.PathStat{Name: p.Name, Size: p.Size, Mode: p.Mode, Mtime: p.Modified, LinkTarget: p.LinkTarget})
	return base64.StdEncoding.EncodeToString(b), err
}

func (c *call) archivePath() (string, error) {
	p := c.text("path")
	if p == "" {
		return "", fault.New(fault.Invalid, "missing parameter: path")
	}
	return p, nil
}

func archiveStat(s *Server, c *call) error {
	name, err := c.archivePath()
	if err != nil {
		return err
	}
	p, err := s.cfg.Containers.StatPath(c.ctx(), c.name, name)
	if err != nil {
		return err
	}
	h, err := pathStat(p)
	if err != nil {
		return err
	}
	c.w.Header().Set(pathHeader, h)
	return c.done(http.StatusOK)
}

func archiveGet(s *Server, c *call) error {
	name, err := c.archivePath()
	if err != nil {
		return err
	}
	return s.cfg.Containers.CopyFrom(c.ctx(), c.name, name, func(p engine.PathStat) (io.Writer, error) {
		h, err := pathStat(p)
		if err != nil {
			return nil, err
		}
		c.w.Header().Set(pathHeader, h)
		c.w.Header().Set("Content-Type", "application/x-tar")
		return lateStatus{c}, nil
	})
}

func archivePut(s *Server, c *call) error {
	dir, err := c.archivePath()
	if err != nil {
		return err
	}
	o := engine.CopyOptions{KeepKinds: c.flag("noOverwriteDirNonDir"), Owned: c.flag("copyUIDGID")}
	if err := s.cfg.Containers.CopyTo(c.ctx(), c.name, dir, c.r.Body, o); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

func containerChanges(s *Server, c *call) error {
	all, err := s.cfg.Containers.Changes(c.ctx(), c.name)
	if err != nil {
		return err
	}
	out := make([]containertypes.FilesystemChange, len(all))
	for i, x := range all {
		out[i] = containertypes.FilesystemChange{Path: x.Path, Kind: containertypes.ChangeType(x.Kind)}
	}
	return c.json(http.StatusOK, out)
}

func containerExport(s *Server, c *call) error {
	c.w.Header().Set("Content-Type", "application/octet-stream")
	return s.cfg.Containers.Export(c.ctx(), c.name, lateStatus{c})
}
