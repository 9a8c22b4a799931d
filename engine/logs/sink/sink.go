package sink

import (
	"context"
	"time"

	"berth/runtime/keeper/localfile"
)

// Record is one line, or a piece of a long one.
type Record struct {
	Stderr bool
	Time   time.Time
	Line   []byte            // without its newline
	Part   localfile.Partial // Ordinal 0: the whole line
	Number uint64            // of records of this container's spool, from 1 on; repeated when it is sent again
}

// Sink hands records to one collector.
type Sink interface {
	// Probe says whether the collector can be reached, within ctx. Of one that cannot be asked it says yes.
	Probe(ctx context.Context) error
	// Send hands records over in order, and calls taken with how many of them were taken so far. It ends with ctx, and by itself some
	// seconds after the collector has stopped taking.
	Send(ctx context.Context, records []Record, taken func(n int)) error
	// Close ends the connection.
	Close()
}

// Patient is a Sink whose options say how failures are tried again.
type Patient interface {
	// Patience gives the first wait, 0 for the usual one, and how often a record is tried, 0 for ever; then it is dropped.
	Patience() (wait time.Duration, tries int)
}

// Later is a sink that cannot be made yet, since a certificate is missing for instance: that is tried again with each Send.
type Later struct {
	Make func() (Sink, error)

	sink Sink
}

// Probe implements Sink.
func (l *Later) Probe(ctx context.Context) error {
	if err := l.make(); err != nil {
		return err
	}
	return l.sink.Probe(ctx)
}

// Send implements Sink.
func (l *Later) Send(ctx context.Context, records []Record, taken func(n int)) error {
	if err := l.make(); err != nil {
		return err
	}
	return l.sink.Send(ctx, records, taken)
}

// Close implements Sink.
func (l *Later) Close() {
	if l.sink != nil {
		l.sink.Close()
	}
}

// Patience implements Patient, as far as the sink is made and says.
func (l *Later) Patience() (wait time.Duration, tries int) {
	if p, ok := l.sink.(Patient); ok {
		return p.Patience()
	}
	return 0, 0
}

func (l *Later) make() (err error) {
	if l.sink == nil {
		l.sink, err = l.Make()
	}
	return err
}

// Patience of the network, for all sinks.
const (
	DialTimeout  = 5 * time.Second
	WriteTimeout = 10 * time.Second
)
