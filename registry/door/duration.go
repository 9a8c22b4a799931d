package door

import (
	"encoding/json"
	"time"
)

// Duration is a time.Duration that JSON shows as people write it: "500ms", "168h".
type Duration time.Duration

// String writes "500ms".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes "500ms".
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads "500ms", or a number of nanoseconds.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var n int64
	if json.Unmarshal(data, &n) == nil {
		*d = Duration(n)
		return nil
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}
