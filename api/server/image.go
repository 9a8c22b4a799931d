package server

import "context"

// Images is what the door asks of the image store.
type Images interface {
	// ID gives the config digest of what ref names.
	ID(ref string) (string, error)
	Count(ctx context.Context) (int, error)
}

func (s *Server) countImages(ctx context.Context) int {
	if s.cfg.Images == nil {
		return 0
	}
	n, _ := s.cfg.Images.Count(ctx)
	return n
}
