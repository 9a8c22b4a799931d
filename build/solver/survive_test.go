package solver

import (
	"errors"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/errdefs"

	"berth/base/fault"
)

// A step that panics fails its build alone; the next build of the same runs it again.
func TestPanicIsTheStepsError(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sources["base"] = &fakeSource{chain: w.pool[:1]}
		var nothing map[string]int
		w.steps["left"] = func(*step) { nothing["x"] = 1 }
		def := script(t, diamond)
		_, err := w.solve(t.Context(), def, BuildConfig{})
		if fault.KindOf(err) != fault.Internal || !strings.Contains(err.Error(), "nil map") || !strings.Contains(err.Error(), "survive_test.go:") {
			t.Errorf("%v", err)
		}
		var ve *errdefs.VertexError
		if d := string(digestOf(t, def, 1)); !errors.As(err, &ve) || ve.Digest != d {
			t.Errorf("vertex %v, want %s", ve, d)
		}
		delete(w.steps, "left")
		if _, err := w.solve(t.Context(), def, BuildConfig{}); err != nil {
			t.Error(err)
		}
	})
}
