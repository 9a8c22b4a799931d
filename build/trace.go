package build

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"berth/build/history"
	"berth/build/progress"
)

// traceMediaType is that of a build's trace: spans of OpenTelemetry in JSON, one behind the other, as BuildKit writes them.
const traceMediaType = "application/vnd.buildkit.otlp.json.v0"

// span is one of them, in the names that OpenTelemetry's Go library gives them.
type span struct {
	Name        string
	SpanContext spanContext
	Parent      spanContext
	SpanKind    int // 1: within one process
	StartTime   time.Time
	EndTime     time.Time
	Attributes  []spanAttr
	Status      spanStatus
	Resource    []spanAttr
}

type spanContext struct {
	TraceID    string
	SpanID     string
	TraceFlags string
	TraceState string
	Remote     bool
}

type spanAttr struct {
	Key   string
	Value spanValue
}

type spanValue struct {
	Type  string
	Value any
}

type spanStatus struct {
	Code        string // Unset, Error, Ok
	Description string
}

// traceOf tells a build as spans: one for the whole, and below it one for each step, from its start to its end.
func traceOf(rec *history.Record, batch progress.Batch) ([]byte, error) {
	sum := sha256.Sum256([]byte("trace of " + rec.ID))
	trace := hex.EncodeToString(sum[:16])
	resource := []spanAttr{text("service.name", "berth")}
	root := span{
		Name: "build " + rec.ID, SpanContext: spanContext{TraceID: trace, SpanID: hex.EncodeToString(sum[16:24]), TraceFlags: "01"},
		Parent:   spanContext{TraceID: "00000000000000000000000000000000", SpanID: "0000000000000000", TraceFlags: "00"},
		SpanKind: 1, StartTime: rec.Created, EndTime: rec.Completed, Status: statusWords(rec.ErrorMessage), Resource: resource,
		Attributes: []spanAttr{text("frontend", rec.Frontend)},
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		return nil, err
	}
	for _, v := range batch.Vertices {
		if v.Started == nil || v.Completed == nil {
			continue
		}
		id := sha256.Sum256([]byte(rec.ID + " " + v.Digest.String()))
		s := span{
			Name: v.Name, SpanContext: spanContext{TraceID: trace, SpanID: hex.EncodeToString(id[:8]), TraceFlags: "01"}, Parent: root.SpanContext,
			SpanKind: 1, StartTime: *v.Started, EndTime: *v.Completed, Status: statusWords(v.Error), Resource: resource,
			Attributes: []spanAttr{text("vertex", v.Digest.String()), {"cached", spanValue{"BOOL", v.Cached}}},
		}
		if err := enc.Encode(s); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

func text(key, value string) spanAttr { return spanAttr{key, spanValue{"STRING", value}} }

func statusWords(failed string) spanStatus {
	if failed == "" {
		return spanStatus{Code: "Unset"}
	}
	return spanStatus{Code: "Error", Description: failed}
}
