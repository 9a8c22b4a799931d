package remotecache

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// answering is a place that says one thing of its table.
type answering struct {
	place
	doc *document
	err error
}

func (a *answering) name() string { return "there" }

func (a *answering) table(context.Context) (*document, error) { return a.doc, a.err }

// What lies at a place is written over only where that is known to be nothing: a registry that does not answer for a moment has it still.
func TestOnlyNothingIsNothing(t *testing.T) {
	d := digest.FromString("a layer")
	doc := &document{Layers: []layer{{Blob: d, Annotations: &layerAnnotations{DiffID: d}}}, Berth: &table{Version: tableVersion, Mounts: []mount{{Key: "go"}}}}
	for _, c := range []struct {
		name  string
		place answering
		fails bool
		old   int
	}{
		{"there", answering{doc: doc}, false, 1},
		{"not found", answering{err: fault.In(fault.New(fault.NotFound, "no manifest"), "ask")}, false, 0},
		{"damaged", answering{err: fault.New(fault.Invalid, "no table")}, false, 0},
		{"unauthorized", answering{err: fault.New(fault.Unauthorized, "401")}, false, 0},
		{"busy", answering{err: fault.New(fault.Unavailable, "503")}, true, 0},
		{"refused", answering{err: fault.New(fault.Forbidden, "403")}, true, 0},
		{"cut off", answering{err: errors.New("connection reset by peer")}, true, 0},
		{"cancelled", answering{err: context.Canceled}, true, 0},
	} {
		x := &exporting{t: &Target{c: &Caches{log: slog.New(slog.DiscardHandler)}}, p: &c.place}
		err := x.before(context.Background())
		if (err != nil) != c.fails || c.fails && !errors.Is(err, c.place.err) {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(x.old) != c.old || len(x.olds) != c.old {
			t.Errorf("%s: %d layers and %d mounts are known", c.name, len(x.old), len(x.olds))
		}
	}
}
