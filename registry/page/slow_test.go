package page

import (
	"strings"
	"testing"
	"time"
)

// A long description is from a stranger: none may take forever, however it is meant, and none twice.
func TestMarkdownIsQuick(t *testing.T) {
	const most = 24 << 10
	for _, part := range []string{"[", "> ", "*a ", "**a", "`", "![", "](", "<", "- ", "|a", "a|\n-|\n", "&", "_a_ ", "[a](", "~~a", "\\", "http://a.b ", "1. ", "#", "\t", "[a]: b\n", "  - "} {
		in := strings.Repeat(part, most/len(part))
		began := time.Now()
		markdown(in)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%d times %q take %s", most/len(part), part, took)
		}
	}
	var c rendered
	slow := strings.Repeat("> ", most/2)
	first := c.markdown(slow)
	began := time.Now()
	if again := c.markdown(slow); again != first || time.Since(began) > 200*time.Millisecond {
		t.Errorf("the second look takes %s", time.Since(began))
	}
	for range 3 * maxRendered {
		c.markdown(strings.Repeat("x", len(c.all)+1))
	}
	if len(c.all) > maxRendered {
		t.Errorf("%d are remembered", len(c.all))
	}
}
