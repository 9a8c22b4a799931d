// Package trace says how long the parts of a piece of work took, in OpenTelemetry's words: a span is one part, spans lie within spans,
// and the outermost is the request that a client made.
//
//	ctx, end := trace.Start(ctx, "start/network")
//	err := join(ctx)
//	end(err)
//
// The life of a span: the door begins the outermost one with a tracer that cmd/berthd gave it, and carries it in the context; every
// Start beneath finds the tracer there. Where nobody collects traces the context holds none, and Start does nothing but look.
//
// The package keeps no tracer of its own and sends nothing: exporting is wired in cmd/berthd.
package trace
