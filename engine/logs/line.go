package logs

import (
	"encoding/json"
	"time"
)

// Line is one decoded log line.
type Line struct {
	Stream byte // 1 stdout, 2 stderr
	Time   time.Time
	Data   []byte
	Attrs  map[string]string
}

type jsonLine struct {
	Log    string            `json:"log"`
	Stream string            `json:"stream"`
	Time   time.Time         `json:"time"`
	Attrs  map[string]string `json:"attrs"`
}

// decode reads one line of a file. A line that is no log line (torn by a power cut, for instance) is not ok.
func decode(b []byte) (Line, bool) {
	var j jsonLine
	if err := json.Unmarshal(b, &j); err != nil {
		return Line{}, false
	}
	l := Line{Time: j.Time, Data: []byte(j.Log), Attrs: j.Attrs}
	switch j.Stream {
	case "stdout":
		l.Stream = 1
	case "stderr":
		l.Stream = 2
	default:
		return Line{}, false
	}
	return l, true
}
