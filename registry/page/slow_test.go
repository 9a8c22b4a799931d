package page

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// A long description is from a stranger: none may take forever, however it is meant, and none twice.
func TestMarkdownIsQuick(t *testing.T) {
	const most = 24 << 10
	for _, part := range []string{"[", "> ", "*a ", "**a", "`", "![", "](", "<", "- ", "|a", "a|\n-|\n", "&", "_a_ ", "[a](", "~~a", "\\", "http://a.b ", "1. ", "#", "\t", "[a]: b\n", "  - "} {
		in := strings.Repeat(part, most/len(part))
		began := cpu()
		markdown(in)
		if took := cpu() - began; took > 10*time.Second {
			t.Errorf("%d times %q take %s of a processor", most/len(part), part, took)
		}
	}
	var c rendered
	slow := strings.Repeat("> ", most/2)
	first := c.markdown(slow)
	least := time.Hour
	for range 20 { // of a busy machine the least says what it costs
		began := time.Now()
		if again := c.markdown(slow); again != first {
			t.Error("the second look shows something else")
		}
		least = min(least, time.Since(began))
	}
	if least > 200*time.Millisecond {
		t.Errorf("the second look takes %s", least)
	}
	for range 3 * maxRendered {
		c.markdown(strings.Repeat("x", len(c.all)+1))
	}
	if len(c.all) > maxRendered {
		t.Errorf("%d are remembered", len(c.all))
	}
}

// cpu is the processor time that this process has taken: unlike the clock it does not count others' work on a busy machine.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails only for a wrong argument
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
