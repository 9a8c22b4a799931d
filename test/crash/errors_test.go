package crash

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestEveryWriteFails lets the n-th passing of every failpoint fail, as a disk with errors does. A verb that fails says so and leaves
// the facts as they were; the next try succeeds.
func TestEveryWriteFails(t *testing.T) {
	t.Parallel()
	rounds := []int{1, 2, 3, 5}
	if os.Getenv("BERTH_SOAK") != "" {
		rounds = nil
		for n := range 60 {
			rounds = append(rounds, n+1)
		}
	}
	o := newTrial(t)
	failed := map[string]bool{}
	for _, n := range rounds {
		o.e.kill()
		o.e.mark()
		o.e.arm = fmt.Sprintf("*=error:%d", n)
		if !o.e.tryStart() { // a disk that fails at the start is a reason not to start, but for this start only
			o.e.arm = ""
			o.e.start()
			o.verify(nil)
		}
		for _, v := range o.e.ordealVerbs(o.busybox, o.extra) {
			o.insist(v, func(err error) {
				if _, point, ok := strings.Cut(err.Error(), "failpoint "); ok {
					failed[strings.FieldsFunc(point, func(r rune) bool { return r == ' ' || r == '"' || r == '\\' || r == ':' || r == ')' })[0]] = true
				}
			})
		}
	}
	o.end()
	t.Logf("%d rounds, %d verbs acknowledged, %d different points reached a client", len(rounds), o.acknowledged, len(failed))
	if len(failed) < 10 {
		t.Errorf("only %d points failed a request: %v", len(failed), failed)
	}
}

// insist repeats a verb that is refused, and checks after each refusal that nothing is half made.
func (o *trial) insist(v verb, refusal func(error)) {
	o.t.Helper()
	o.insistWith(v, refusal, false)
}

// insistWith is insist for a verb that was tried before.
func (o *trial) insistWith(v verb, refusal func(error), tried bool) {
	o.t.Helper()
	for try := 0; ; try++ {
		err := v.do(tried || try > 0)
		if err == nil {
			break
		}
		var r *refused
		if !errors.As(err, &r) {
			o.t.Fatalf("%s: the engine died: %v\n%s", v.name, err, o.e.tail())
		}
		refusal(err)
		if try > 40 {
			o.t.Fatalf("%s: refused %d times: %v\n%s", v.name, try, err, o.e.tail())
		}
		o.mayBe(v, err)
		if o.t.Failed() {
			o.t.FailNow()
		}
	}
	o.acknowledged++
	o.model = o.model.after(v)
	o.verify(nil)
	if o.t.Failed() {
		o.t.Fatalf("after %s\n%s", v.name, o.e.tail())
	}
}

// mayBe waits until the facts are those from before a verb, those after it, or on its known way.
func (o *trial) mayBe(v verb, why error) {
	o.t.Helper()
	next := o.model.after(v)
	var wrong []string
	settled := eventually(func() bool {
		got, err := o.e.observe()
		if err == nil {
			wrong = nil
			for _, k := range append(differingKeys(o.model, got), differingKeys(next, got)...) {
				if got[k] != o.model[k] && got[k] != next[k] && !v.onTheWay(k, got[k]) {
					wrong = append(wrong, fmt.Sprintf("%s: is %q, was %q, would be %q", k, got[k], o.model[k], next[k]))
				}
			}
		}
		return err == nil && wrong == nil
	})
	if !settled {
		o.t.Errorf("%s failed (%v) and left something half made:\n%s", v.name, why, strings.Join(wrong, "\n"))
	}
}

func (v verb) onTheWay(key, value string) bool {
	for _, pattern := range v.via[key] {
		if end, ok := strings.CutPrefix(pattern, "*"); value == pattern || ok && strings.HasSuffix(value, end) {
			return true
		}
	}
	return false
}

func differingKeys(a, b facts) (keys []string) {
	for k := range a {
		if a[k] != b[k] {
			keys = append(keys, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	return keys
}
