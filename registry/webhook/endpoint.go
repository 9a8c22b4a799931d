package webhook

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"time"

	"golang.org/x/net/http/httpguts"

	"berth/base/fault"
	"berth/registry/door"
	"berth/registry/pattern"
)

// Endpoint is somebody who wants to be told. Field names in JSON are those of Docker's configuration where it has the field.
type Endpoint struct {
	Name     string      `json:"name"`
	URL      string      `json:"url"` // http or https, without a password in it
	Disabled bool        `json:"disabled,omitempty"`
	Headers  http.Header `json:"headers,omitempty"` // sent with each request; values are not shown again
	Secret   string      `json:"secret,omitempty"`  // key of the signature; not shown again

	Timeout    door.Duration `json:"timeout,omitempty"`     // of one request; 0: 5 s
	Threshold  int           `json:"threshold,omitempty"`   // failures in a row before the endpoint is left alone; 0: 10
	Backoff    door.Duration `json:"backoff,omitempty"`     // for how long, at first; 0: 1 s
	QueueLimit int           `json:"queue_limit,omitempty"` // events that wait at most; 0: 10,000

	Repositories []string `json:"repositories,omitempty"` // only these, by pattern (team/*, team/**); none: all
	Ignore       Ignore   `json:"ignore,omitzero"`
	// IgnoredMediaTypes is the older spelling of Ignore.MediaTypes; both hold.
	IgnoredMediaTypes []string `json:"ignoredmediatypes,omitempty"`
}

// Ignore says what an endpoint does not want to hear of.
type Ignore struct {
	MediaTypes []string `json:"mediatypes,omitempty"`
	Actions    []string `json:"actions,omitempty"`
}

var endpointName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

// Bounds of an endpoint.
const (
	maxTimeout    = door.Duration(time.Minute)
	maxBackoff    = door.Duration(time.Hour)
	maxQueueLimit = 1_000_000
)

// check refuses an endpoint that cannot work. Errors are Invalid.
func (e Endpoint) check() error {
	if !endpointName.MatchString(e.Name) {
		return fault.New(fault.Invalid, "%q is no name for a webhook: letters, digits, dot, dash and underscore", e.Name)
	}
	u, err := url.Parse(e.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fault.New(fault.Invalid, "webhook %s: the url must begin with http:// or https:// and name a host", e.Name)
	case u.User != nil:
		return fault.New(fault.Invalid, "webhook %s: put the password into a header (Authorization), not into the url, which is shown", e.Name)
	case e.Timeout < 0 || e.Timeout > maxTimeout:
		return fault.New(fault.Invalid, "webhook %s: timeout must lie between 0 and %s", e.Name, maxTimeout)
	case e.Backoff < 0 || e.Backoff > maxBackoff:
		return fault.New(fault.Invalid, "webhook %s: backoff must lie between 0 and %s", e.Name, maxBackoff)
	case e.Threshold < 0:
		return fault.New(fault.Invalid, "webhook %s: threshold must not be negative", e.Name)
	case e.QueueLimit < 0 || e.QueueLimit > maxQueueLimit:
		return fault.New(fault.Invalid, "webhook %s: queue_limit must lie between 0 and %d", e.Name, maxQueueLimit)
	}
	for k, values := range e.Headers {
		if !httpguts.ValidHeaderFieldName(k) || slices.ContainsFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }) {
			return fault.New(fault.Invalid, "webhook %s: header %q cannot be sent", e.Name, k)
		}
	}
	if err := pattern.Check(e.Repositories); err != nil {
		return fault.In(err, "webhook %s", e.Name)
	}
	return nil
}

// withDefaults fills in what was left out.
func (e Endpoint) withDefaults() Endpoint {
	if e.Timeout == 0 {
		e.Timeout = door.Duration(5 * time.Second)
	}
	if e.Backoff == 0 {
		e.Backoff = door.Duration(time.Second)
	}
	if e.Threshold == 0 {
		e.Threshold = 10
	}
	if e.QueueLimit == 0 {
		e.QueueLimit = 10_000
	}
	return e
}

// wants reports whether the endpoint is to be told.
func (e Endpoint) wants(v Event) bool {
	if e.Disabled || slices.Contains(e.Ignore.Actions, v.Action) ||
		slices.Contains(e.Ignore.MediaTypes, v.Target.MediaType) || slices.Contains(e.IgnoredMediaTypes, v.Target.MediaType) {
		return false
	}
	return len(e.Repositories) == 0 || pattern.Any(e.Repositories, v.Target.Repository)
}

// shown gives the endpoint without its secrets.
func (e Endpoint) shown() Endpoint {
	e.Secret = ""
	if e.Headers == nil {
		return e
	}
	hidden := http.Header{}
	for k := range e.Headers {
		hidden[k] = []string{"(not shown)"}
	}
	e.Headers = hidden
	return e
}
