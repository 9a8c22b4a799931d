package logs

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"berth/runtime/keeper/jsonfile"
)

// TestQuick: what our own writer writes is read the quick way, and as encoding/json reads it.
func TestQuick(t *testing.T) {
	var every []byte
	for c := range 256 {
		every = append(every, byte(c), '"', '\\')
	}
	for i, text := range [][]byte{
		[]byte("plain"), nil, []byte(`quote " backslash \ both \" \\" \\\"`), []byte(`\`), []byte(`\\`), []byte(`"`), []byte("tab\tcr\rnul\x00bell\x07"), []byte("é😀"), []byte(strings.Repeat(`a"b\`, 5000)),
	} {
		for _, newline := range []bool{true, false} {
			b := bytes.TrimSuffix(jsonfile.Append(nil, text, newline, "stderr", nil, time.Unix(1700000000, int64(i))), []byte("\n"))
			q, ok := quick(b)
			s, sok := slow(b)
			if !ok || !sok || !bytes.Equal(q.Data, s.Data) || !q.Time.Equal(s.Time) || q.Stream != s.Stream {
				t.Errorf("%q: %t %q %v, %t %q %v", b, ok, q.Data, q.Time, sok, s.Data, s.Time)
			}
		}
	}
	b := bytes.TrimSuffix(jsonfile.Append(nil, every, true, "stdout", nil, time.Unix(1700000000, 0)), []byte("\n"))
	if q, ok := quick(b); ok {
		if s, _ := slow(b); !bytes.Equal(q.Data, s.Data) {
			t.Errorf("%q, want %q", q.Data, s.Data)
		}
	}
}

// FuzzQuick: what the quick way takes, encoding/json takes too, and reads alike.
func FuzzQuick(f *testing.F) {
	f.Add([]byte(`{"log":"a\u003cb\n","stream":"stdout","time":"2030-01-01T00:00:00.000000001Z"}`))
	f.Add([]byte(`{"log":"\\\"","stream":"stderr","time":"2030-01-01T00:00:00+01:00"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, ok := quick(b); ok {
			if s, sok := slow(b); !sok || !bytes.Equal(q.Data, s.Data) || !q.Time.Equal(s.Time) || q.Stream != s.Stream {
				t.Fatalf("%q: %+v, %t %+v", b, q, sok, s)
			}
		}
	})
}
