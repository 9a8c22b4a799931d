package process

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// TestForgetText: less of the program is mapped, and it still runs.
func TestForgetText(t *testing.T) {
	before := fileRSS(t)
	n, err := ForgetText()
	if err != nil || n == 0 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	after := fileRSS(t)
	if after >= before {
		t.Errorf("%d kB of files mapped before, %d after", before, after)
	}
}

func fileRSS(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`RssFile:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Skip("the kernel does not tell RssFile (Linux before 4.5)")
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}
