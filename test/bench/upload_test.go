package main

import (
	"net/http"
	"os"
	"testing"
)

// Gives the image of the benches to a registry, for profiles: BERTH_BENCH_REGISTRY=HOST:PORT.
func TestUploadSample(t *testing.T) {
	registry := os.Getenv("BERTH_BENCH_REGISTRY")
	if registry == "" {
		t.Skip("needs BERTH_BENCH_REGISTRY: the registry to give the image to")
	}
	s, err := makeSample(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.upload(http.DefaultClient, registry, sampleRepo, s.tag()); err != nil {
		t.Fatal(err)
	}
}
