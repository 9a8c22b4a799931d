package wire

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
)

// Step is one thing to tell about a pull, a push or a load while it goes on.
type Step struct {
	ID      string // of the layer, short, or the tag
	Status  string
	Current int64 // bytes
	Total   int64 // bytes; 0 unknown
	Aux     any   // what a program wants to know, sent beside the texts; nil: nothing
}

// ProgressLine is a step as a line of a progress stream at API version v, without the end of the line. A line about a layer has a
// progressDetail even when there is nothing in it, and so has one with an aux: stock clients tell by it whether a line replaces the one
// before. Until 1.51 the bar was drawn by the engine, too.
func ProgressLine(p Step, v Version) []byte {
	m := progressMessage{ID: p.ID, Status: p.Status}
	if p.Aux != nil {
		b, err := json.Marshal(p.Aux)
		if err != nil {
			return nil
		}
		m.Aux = b
	}
	if p.Aux != nil || p.ID != "" && !Announces(p.Status) || p.Current > 0 {
		m.Detail = &jsonstream.Progress{Current: p.Current, Total: p.Total}
		if v < 52 {
			m.Bar = bar(p.Current, p.Total)
		}
	}
	b, _ := json.Marshal(m) // texts and numbers, and what was marshalled before
	return b
}

// Announces reports whether a status is the line with which a pull begins, whose ID is a tag and no layer.
func Announces(status string) bool { return strings.HasPrefix(status, "Pulling from ") }

// StreamLine is a line of text as `docker load` prints it.
func StreamLine(text string) []byte {
	b, _ := json.Marshal(jsonstream.Message{Stream: text})
	return b
}

// ErrorLine tells in a stream that has begun how it failed: in the form of today and in the one that 1.4 deprecated and all still send.
func ErrorLine(err error) []byte {
	b, _ := json.Marshal(progressMessage{Error: &jsonstream.Error{Message: err.Error()}, Text: err.Error()})
	return b
}

// AuxLine is a line for programs: what happened in a build, or what came of it. id says what the value is; "" in lines of old.
func AuxLine(id string, value any) []byte {
	b, err := json.Marshal(value)
	if err != nil {
		return nil
	}
	line, _ := json.Marshal(progressMessage{ID: id, Aux: b})
	return line
}

// ExitLine is an ErrorLine about a command of a build that ended with a code.
func ExitLine(text string, code int) []byte {
	b, _ := json.Marshal(progressMessage{Error: &jsonstream.Error{Code: code, Message: text}, Text: text})
	return b
}

type progressMessage struct {
	Status string               `json:"status,omitempty"`
	Detail *jsonstream.Progress `json:"progressDetail,omitempty"`
	Bar    string               `json:"progress,omitempty"`
	ID     string               `json:"id,omitempty"`
	Error  *jsonstream.Error    `json:"errorDetail,omitempty"`
	Text   string               `json:"error,omitempty"`
	Aux    json.RawMessage      `json:"aux,omitempty"`
}

// bar draws how far something is, as wide as Docker's engine does without a terminal.
func bar(current, total int64) string {
	const width = 50
	if current <= 0 && total <= 0 {
		return ""
	}
	done := units.HumanSize(float64(current))
	if total <= 0 {
		return fmt.Sprintf("%8v", done)
	}
	full := min(int(float64(current)/float64(total)*2*width)/2, width)
	drawn := "[" + strings.Repeat("=", full) + ">" + strings.Repeat(" ", width-full) + "] "
	if current > total { // the total was a guess
		return drawn + fmt.Sprintf("%8v", done)
	}
	return drawn + fmt.Sprintf("%8v/%v", done, units.HumanSize(float64(total)))
}
