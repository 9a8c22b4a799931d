package build

import (
	"strings"
	"testing"
)

// What everybody who may list builds reads holds nobody's keys.
func TestRecordsHoldNoKeys(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"context", "https://me:word@host/x.git#main", "https://xxxxx:xxxxx@host/x.git#main"},
		{"build-arg:A", "word", "word"},
		{"cache-imports", `[{"Type":"s3","Attrs":{"bucket":"b","access_key_id":"id","secret_access_key":"word","session_token":"word"}},{"Type":"gha","Attrs":{"token":"word"}}]`,
			`[{"Type":"s3","Attrs":{"access_key_id":"xxxxx","bucket":"b","secret_access_key":"xxxxx","session_token":"xxxxx"}},{"Type":"gha","Attrs":{"token":"xxxxx"}}]`},
		{"cache-imports", `[{"Type":"s3","Attrs":{"endpoint_url":"https://me:word@host"}}]`, `[{"Type":"s3","Attrs":{"endpoint_url":"https://xxxxx:xxxxx@host"}}]`},
		{"cache-imports", `[{"Type":"registry"}]`, `[{"Type":"registry"}]`},
		{"cache-imports", `{"secret":"word"`, "xxxxx"},
	} {
		got := recordable(c.name, c.value)
		if got != c.want || c.name != "build-arg:A" && strings.Contains(got, "word") {
			t.Errorf("%s %s: %s", c.name, c.value, got)
		}
	}
}
