package jsonfile

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

var at = time.Date(2026, 1, 2, 15, 4, 5, 120000000, time.FixedZone("x", 3600))

func TestAppend(t *testing.T) {
	for _, c := range []struct {
		line    string
		newline bool
		attrs   []byte
		want    string
	}{
		{"hello", true, nil, `{"log":"hello\n","stream":"stdout","time":"2026-01-02T14:04:05.12Z"}` + "\n"},
		{"", true, nil, `{"log":"\n","stream":"stdout","time":"2026-01-02T14:04:05.12Z"}` + "\n"},
		{"piece", false, nil, `{"log":"piece","stream":"stdout","time":"2026-01-02T14:04:05.12Z"}` + "\n"},
		{"a\tb\x00\x7f\r\b", true, nil, `{"log":"a\u0009b\u0000` + "\x7f" + `\r\u0008\n","stream":"stdout","time":"2026-01-02T14:04:05.12Z"}` + "\n"},
		{`<a href="x">&\`, true, nil, `{"log":"\u003ca href=\"x\"\u003e\u0026\\\n","stream":"stdout","time":"2026-01-02T14:04:05.12Z"}` + "\n"},
		{"é\xff\xc3(\u2028\u2029\ufffd", true, nil, `{"log":"é\ufffd\ufffd(\u2028\u2029` + "\ufffd" + `\n","stream":"stdout","time":"2026-01-02T14:04:05.12Z"}` + "\n"},
		{"x", true, Attrs([]string{"a", `b"`}, []string{"1", "<"}), `{"log":"x\n","stream":"stdout","attrs":{"a":"1","b\"":"\u003c"},"time":"2026-01-02T14:04:05.12Z"}` + "\n"},
	} {
		if got := string(Append(nil, []byte(c.line), c.newline, "stdout", c.attrs, at)); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.line, got, c.want)
		}
	}
}

// docker turns what encoding/json writes into what Docker writes: the two differ in three escapes.
func docker(s string) string {
	out := strings.Builder{}
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if r, ok := map[byte]string{'t': `\u0009`, 'b': `\u0008`, 'f': `\u000c`}[s[i+1]]; ok {
				out.WriteString(r)
			} else {
				out.WriteString(s[i : i+2])
			}
			i++
			continue
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

func FuzzAppend(f *testing.F) {
	f.Add([]byte("hello"), true)
	f.Add([]byte("\t\b\f\\t<>&\"\u2028\xff\xf0\x9f"), false)
	f.Fuzz(func(t *testing.T, line []byte, newline bool) {
		text := string(line)
		if newline {
			text += "\n"
		}
		b, err := json.Marshal(struct {
			Log    string    `json:"log"`
			Stream string    `json:"stream"`
			Time   time.Time `json:"time"`
		}{text, "stderr", at.UTC()})
		if err != nil {
			t.Fatal(err)
		}
		want := docker(string(b)) + "\n"
		if got := string(Append(nil, line, newline, "stderr", nil, at)); got != want {
			t.Fatalf("%q:\n got %s\nwant %s", line, got, want)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	line := []byte(strings.Repeat("the quick brown fox ", 6))
	var buf []byte
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		buf = Append(buf[:0], line, true, "stdout", nil, at)
	}
}
