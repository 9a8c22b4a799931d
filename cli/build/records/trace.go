package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"go.opentelemetry.io/otel/codes"
)

// A Trace is the spans of one build, the build's own first.
type Trace []Span

// A Span is a part of a build, as OpenTelemetry's SDK writes it.
type Span struct {
	Name                   string
	SpanContext, Parent    spanContext
	SpanKind               int
	StartTime, EndTime     time.Time
	Attributes             []attribute
	Events                 []event
	Links                  []struct{ SpanContext spanContext }
	Status                 status
	Resource               []attribute
	InstrumentationLibrary struct{ Name, Version string }
}

type spanContext struct{ TraceID, SpanID, TraceFlags string }

type attribute struct {
	Key   string
	Value struct {
		Type  string
		Value any
	}
}

type event struct {
	Name                  string
	Attributes            []attribute
	DroppedAttributeCount int
	Time                  time.Time
}

type status struct {
	Code        codes.Code
	Description string
}

// ReadTrace reads the spans that an engine keeps with a record.
func ReadTrace(text []byte) (Trace, error) {
	var t Trace
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var s Span
		err := d.Decode(&s)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read a trace: %w", err)
		}
		t = append(t, s)
	}
	if len(t) == 0 {
		return nil, errors.New("no trace data")
	}
	return t, nil
}

// barWidth is how many characters a whole build is wide.
const barWidth = 40

// Print shows when each part began, how long it took, and where in the build that was.
func (t Trace) Print(out io.Writer) error {
	begin, end := t.span()
	whole := max(end.Sub(begin), 1)
	at := func(d time.Duration) int { return int(min(max(barWidth*d.Seconds()/whole.Seconds(), 0), barWidth-1)) }
	w := tabwriter.NewWriter(out, 1, 8, 2, ' ', 0)
	fmt.Fprintln(w, "START\tDURATION\t\tSTEP")
	for _, s := range t {
		from, to := at(s.StartTime.Sub(begin)), at(s.EndTime.Sub(begin))
		bar := strings.Repeat(" ", from) + strings.Repeat("=", max(to-from, 0)+1)
		name := s.Name
		if s.Status.Code == codes.Error {
			name += ": " + s.Status.Description
		}
		fmt.Fprintf(w, "%s\t%s\t%-*s\t%s\n", seconds(s.StartTime.Sub(begin)), seconds(s.EndTime.Sub(s.StartTime)), barWidth, bar, name)
	}
	return w.Flush()
}

// Compare shows how long each step of both took, by name, in the order of the other; "-" is a step that one of them did not have.
func (t Trace) Compare(out io.Writer, other Trace) error {
	w := tabwriter.NewWriter(out, 1, 8, 2, ' ', 0)
	fmt.Fprintln(w, "BEFORE\tNOW\tSTEP")
	took := func(s Span) string { return seconds(s.EndTime.Sub(s.StartTime)) }
	rest := slices.Clone(t)
	for i, before := range other {
		now, j := "-", slices.IndexFunc(rest, func(s Span) bool { return s.Name == before.Name })
		if i == 0 && len(rest) > 0 { // the builds themselves, whatever they are called
			j = 0
		}
		if j >= 0 {
			now = took(rest[j])
			rest = slices.Delete(rest, j, j+1)
		}
		name := before.Name
		if i == 0 {
			name = "the whole build"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", took(before), now, name)
	}
	for _, s := range rest {
		fmt.Fprintf(w, "-\t%s\t%s\n", took(s), s.Name)
	}
	return w.Flush()
}

func (t Trace) span() (begin, end time.Time) {
	begin, end = t[0].StartTime, t[0].EndTime
	for _, s := range t {
		if s.StartTime.Before(begin) {
			begin = s.StartTime
		}
		if s.EndTime.After(end) {
			end = s.EndTime
		}
	}
	return begin, end
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2fs", d.Seconds()) }

// Jaeger's JSON, as its user interface takes it: jaegertracing/jaeger, model/json.
type (
	jaegerTrace struct {
		TraceID   string                   `json:"traceID"`
		Spans     []jaegerSpan             `json:"spans"`
		Processes map[string]jaegerProcess `json:"processes"`
		Warnings  []string                 `json:"warnings"`
	}
	jaegerSpan struct {
		TraceID       string            `json:"traceID"`
		SpanID        string            `json:"spanID"`
		Flags         int               `json:"flags,omitempty"`
		OperationName string            `json:"operationName"`
		References    []jaegerReference `json:"references"`
		StartTime     int64             `json:"startTime"` // microseconds since 1970
		Duration      int64             `json:"duration"`  // microseconds
		Tags          []jaegerTag       `json:"tags"`
		Logs          []jaegerLog       `json:"logs"`
		ProcessID     string            `json:"processID"`
		Warnings      []string          `json:"warnings"`
	}
	jaegerReference struct {
		RefType string `json:"refType"`
		TraceID string `json:"traceID"`
		SpanID  string `json:"spanID"`
	}
	jaegerProcess struct {
		ServiceName string      `json:"serviceName"`
		Tags        []jaegerTag `json:"tags"`
	}
	jaegerTag struct {
		Key   string `json:"key"`
		Type  string `json:"type"`
		Value any    `json:"value"`
	}
	jaegerLog struct {
		Timestamp int64       `json:"timestamp"`
		Fields    []jaegerTag `json:"fields"`
	}
)

// PrintJaeger writes traces for Jaeger's user interface.
func PrintJaeger(out io.Writer, traces ...Trace) error {
	data := make([]jaegerTrace, 0, len(traces))
	for _, t := range traces {
		data = append(data, t.jaeger())
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{"data": data})
}

func (t Trace) jaeger() jaegerTrace {
	j := jaegerTrace{TraceID: t[0].SpanContext.TraceID, Processes: map[string]jaegerProcess{}}
	for i, s := range t {
		process := fmt.Sprintf("p%d", i)
		j.Processes[process] = processOf(s.Resource)
		one := s.jaeger()
		one.ProcessID = process
		j.Spans = append(j.Spans, one)
	}
	return j
}

func processOf(resource []attribute) jaegerProcess {
	var p jaegerProcess
	for _, a := range resource {
		if a.Key == "service.name" {
			p.ServiceName = fmt.Sprint(a.Value.Value)
			continue
		}
		p.Tags = append(p.Tags, a.tag())
	}
	return p
}

func (s Span) jaeger() jaegerSpan {
	j := jaegerSpan{
		TraceID: s.SpanContext.TraceID, SpanID: s.SpanContext.SpanID, OperationName: s.Name, Tags: []jaegerTag{},
		StartTime: s.StartTime.UnixMicro(), Duration: s.EndTime.Sub(s.StartTime).Microseconds(),
	}
	if s.SpanContext.TraceFlags == "01" { // sampled
		j.Flags = 1
	}
	for _, a := range s.Attributes {
		j.Tags = append(j.Tags, a.tag())
	}
	text := func(key, v string) {
		if v != "" {
			j.Tags = append(j.Tags, jaegerTag{key, "string", v})
		}
	}
	text("otel.library.name", s.InstrumentationLibrary.Name)
	text("otel.library.version", s.InstrumentationLibrary.Version)
	// OpenTelemetry's kinds; 1 is internal, which goes without saying.
	if kinds := []string{2: "server", 3: "client", 4: "producer", 5: "consumer"}; s.SpanKind > 1 && s.SpanKind < len(kinds) {
		text("span.kind", kinds[s.SpanKind])
	}
	switch s.Status.Code {
	case codes.Ok:
		text("otel.status_code", "OK")
	case codes.Error:
		j.Tags = append(j.Tags, jaegerTag{"error", "bool", true})
		text("otel.status_code", "ERROR")
	}
	text("otel.status_description", s.Status.Description)
	for _, e := range s.Events {
		l := jaegerLog{Timestamp: e.Time.UnixMicro()}
		if e.Name != "" {
			l.Fields = append(l.Fields, jaegerTag{"event", "string", e.Name})
		}
		for _, a := range e.Attributes {
			l.Fields = append(l.Fields, a.tag())
		}
		if n := e.DroppedAttributeCount; n > 0 {
			l.Fields = append(l.Fields, jaegerTag{"otel.event.dropped_attributes_count", "int64", n})
		}
		j.Logs = append(j.Logs, l)
	}
	for _, l := range s.Links {
		j.References = append(j.References, jaegerReference{"FOLLOWS_FROM", l.SpanContext.TraceID, l.SpanContext.SpanID})
	}
	j.References = append(j.References, jaegerReference{"CHILD_OF", s.Parent.TraceID, s.Parent.SpanID})
	return j
}

// tag is an attribute in Jaeger's words: of its types, lists are JSON in a string.
func (a attribute) tag() jaegerTag {
	switch a.Value.Type {
	case "BOOL", "INT64", "FLOAT64":
		return jaegerTag{a.Key, strings.ToLower(a.Value.Type), a.Value.Value}
	case "STRING":
		return jaegerTag{a.Key, "string", a.Value.Value}
	}
	text, err := json.Marshal(a.Value.Value)
	if err != nil {
		text = nil // what was read can be written
	}
	return jaegerTag{a.Key, "string", string(text)}
}
