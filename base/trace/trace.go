package trace

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// scope is the name under which collectors see our spans.
const scope = "berth"

// Start begins a span within the one that ctx carries. end is called once, with the part's error or nil. Attributes are pairs of name
// and value. Without a span in ctx, or one that is not recorded, ctx comes back as it is.
func Start(ctx context.Context, name string, pairs ...string) (_ context.Context, end func(error)) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, func(error) {}
	}
	ctx, span := parent.TracerProvider().Tracer(scope).Start(ctx, name, trace.WithAttributes(attributes(pairs)...))
	return ctx, ender(span)
}

// Root begins the outermost span of this process, as a server's answer to a request, with tracers from p. ctx may carry the span of
// another process, which then is its parent. ok says whether it is recorded at all: then attributes are worth gathering.
func Root(ctx context.Context, p trace.TracerProvider, name string, pairs ...string) (_ context.Context, end func(error), ok bool) {
	ctx, span := p.Tracer(scope).Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attributes(pairs)...))
	return ctx, ender(span), span.IsRecording()
}

// Add puts pairs of name and value on the span that ctx carries.
func Add(ctx context.Context, pairs ...string) {
	if s := trace.SpanFromContext(ctx); s.IsRecording() {
		s.SetAttributes(attributes(pairs)...)
	}
}

func ender(s trace.Span) func(error) {
	return func(err error) {
		if err != nil {
			s.SetStatus(codes.Error, err.Error())
		}
		s.End()
	}
}

func attributes(pairs []string) []attribute.KeyValue {
	all := make([]attribute.KeyValue, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		all = append(all, attribute.String(pairs[i], pairs[i+1]))
	}
	return all
}
