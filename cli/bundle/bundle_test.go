package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestASickEngineMakesABundleToo(t *testing.T) {
	id := strings.Repeat("ab", 32)
	ask := func(_ context.Context, path string) ([]byte, error) {
		switch {
		case strings.HasPrefix(path, "/containers/json"):
			return []byte(`[{"Id": "` + id + `"}, {"Id": "../../etc/passwd"}]`), nil
		case strings.HasSuffix(path, id+"/json"):
			return []byte(`{"Config": {"Env": ["A=hunter2"]}}`), nil
		case strings.HasPrefix(path, "/events"):
			return []byte("{\"Action\": \"start\", \"token\": \"hunter2\"}\n{\"Action\": \"die\"}\n"), nil
		}
		return nil, errors.New("it does not answer")
	}
	var b bytes.Buffer
	if err := Write(t.Context(), &b, Options{Ask: ask, Local: true, Now: time.Unix(1e9, 999e6)}); err != nil {
		t.Fatal(err)
	}
	got := unpack(t, &b)
	if text := got["berth-support/containers/abababababab/inspect.json"]; !strings.Contains(text, "A=[redacted]") {
		t.Errorf("inspect: %q", text)
	}
	if text := got["berth-support/events.jsonl"]; text != "{\"Action\":\"start\",\"token\":\"[redacted]\"}\n{\"Action\":\"die\"}\n" {
		t.Errorf("events: %q", text)
	}
	if text := got["berth-support/problems.txt"]; !strings.Contains(text, "info.json: it does not answer") {
		t.Errorf("problems: %q", text)
	}
	if got["berth-support/machine/meminfo"] == "" || got["berth-support/README.txt"] == "" {
		t.Error("the machine is missing")
	}
	for name, text := range got {
		if strings.Contains(text, "hunter2") || strings.Contains(name, "..") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func unpack(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for tr := tar.NewReader(zip); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		// tar rounds times up, and complains of files from the future when it unpacks them at once.
		if want := time.Unix(1e9, 0); !h.ModTime.Equal(want) {
			t.Errorf("%s is of %s, want %s", h.Name, h.ModTime, want)
		}
		files[h.Name] = string(text)
	}
}
