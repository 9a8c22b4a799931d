package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Each testdata/NAME.json is a stream of events; NAME.golden is what the reader is shown.
func TestReports(t *testing.T) {
	streams, err := filepath.Glob("testdata/*.json")
	if err != nil || len(streams) == 0 {
		t.Fatalf("no streams: %v", err)
	}
	for _, stream := range streams {
		name := strings.TrimSuffix(filepath.Base(stream), ".json")
		t.Run(name, func(t *testing.T) {
			f, err := os.Open(stream)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var out bytes.Buffer
			r := newReport(&out, 5*time.Second)
			if err := r.read(f); err != nil {
				t.Fatal(err)
			}
			code := r.finish()
			wantCode := 1
			if strings.HasPrefix(name, "good") {
				wantCode = 0
			}
			if code != wantCode {
				t.Errorf("exit code %d, want %d", code, wantCode)
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", &out, want)
			}
		})
	}
}

func TestNothingRunIsNoSuccess(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out, time.Second)
	if r.finish() == 0 {
		t.Error("a run without a single test counted as success")
	}
}
