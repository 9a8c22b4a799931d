package trace

import (
	"context"
	"errors"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func TestSpansLieWithinSpans(t *testing.T) {
	kept := tracetest.NewInMemoryExporter()
	p := sdk.NewTracerProvider(sdk.WithSyncer(kept))
	ctx, endRoot, ok := Root(t.Context(), p, "POST /containers/{name}/start", "container.id", "abc")
	if !ok {
		t.Fatal("not recorded")
	}
	inner, end := Start(ctx, "start", "step", "network")
	Add(inner, "later", "yes")
	end(errors.New("no address is free"))
	endRoot(nil)

	spans := kept.GetSpans()
	if len(spans) != 2 {
		t.Fatalf("%d spans", len(spans))
	}
	child, root := spans[0], spans[1] // in the order of their ends
	if child.Parent.SpanID() != root.SpanContext.SpanID() || child.SpanContext.TraceID() != root.SpanContext.TraceID() {
		t.Error("the step is not within the request")
	}
	if child.Status.Description != "no address is free" || root.Status.Description != "" {
		t.Errorf("%+v, %+v", child.Status, root.Status)
	}
	if len(child.Attributes) != 2 || child.Attributes[1].Value.AsString() != "yes" || len(root.Attributes) != 1 {
		t.Errorf("%v, %v", child.Attributes, root.Attributes)
	}
}

func TestNobodyListens(t *testing.T) {
	ctx := context.Background()
	inner, end := Start(ctx, "start", "step", "network")
	end(errors.New("x"))
	if inner != ctx {
		t.Error("a context was made for nothing")
	}
	Add(ctx, "a", "b")
	if n := testing.AllocsPerRun(100, func() { _, end := Start(ctx, "start", "a", "b"); end(nil) }); n > 0 {
		t.Errorf("%v allocations where nobody listens", n)
	}
}
