package export

import (
	"context"

	"berth/base/fault"
)

type fileOptions struct{}

func parseFiles(attrs map[string]string) (*fileOptions, error) { return &fileOptions{}, nil }

func (o *Output) exportFiles(ctx context.Context, res *Result, run *Run) (*Done, error) {
	return nil, fault.New(fault.NotImplemented, "exports of files")
}

func (e *Exporter) toArchive(ctx context.Context, o *Output, m *made) (*Done, error) {
	return nil, fault.New(fault.NotImplemented, "archives")
}

func (e *Exporter) squash(ctx context.Context, m *made, p *part) error {
	return fault.New(fault.NotImplemented, "squash")
}

func (e *Exporter) rewrite(ctx context.Context, m *made, p *part) error {
	return fault.New(fault.NotImplemented, "rewrite-timestamp")
}
