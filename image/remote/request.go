package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"berth/base/fault"
)

const (
	maxRedirects  = 10
	maxTries      = 4                // of one request, the first included
	longestWait   = 30 * time.Second // a Retry-After beyond it is told, not waited for
	totalWait     = 60 * time.Second // that one request may wait between its tries
	answerTimeout = 60 * time.Second // for the head of an answer
	wholeTimeout  = 3 * time.Minute  // for a whole exchange, except of blobs: there progress counts
	storeTimeout  = 15 * time.Minute // for the answer to an upload: the server may have to move much
)

// request is what is asked of an endpoint.
type request struct {
	method string
	path   string   // below the endpoint's base
	url    *url.URL // instead of path: an address that the server gave
	query  url.Values
	header http.Header
	body   func() (io.ReadCloser, error) // nil: none; called for each try
	size   int64                         // of the body; < 0: not known
	scopes []string                      // atoms that a token must cover
	says   string                        // the method in messages, where dockerd uses another one; "": method
	any    bool                          // every answer is good, except that none came
	// noBounce: redirects are answers that were not expected.
	noBounce bool
	// long: there is no limit to how long it may take as a whole.
	long bool
	// once: a second try could do harm or is made by the caller.
	once bool
	// wait is for the head of the answer; 0: answerTimeout.
	wait time.Duration
}

// textBody is a body that can be sent again.
func textBody(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

// do asks an endpoint and gives its answer when that was yes. It finds out how to speak to it, shows the caller's credentials
// where they are asked for, follows redirects and tries again what may succeed. The caller closes the body.
func (s *session) do(ctx context.Context, e *endpoint, q *request) (*http.Response, error) {
	base, challenges, err := s.know(ctx, e)
	if err != nil {
		return nil, err
	}
	resp, err := s.retrying(ctx, e, func() (*http.Response, error) { return s.authorized(ctx, e, base, challenges, q) }, q.once)
	if err != nil && refusalOf(err) == nil && fault.Is(err, fault.Unavailable) {
		s.c.unlearn(e)
	}
	return resp, err
}

// authorized sends the request with what the caller can show, and once more when the registry asks for another token.
func (s *session) authorized(ctx context.Context, e *endpoint, base url.URL, challenges []challenge, q *request) (*http.Response, error) {
	header, err := s.authorization(ctx, e, challenges, q.scopes)
	if err != nil {
		return nil, fault.In(err, "%s %q", q.title(), target(base, q))
	}
	resp, err := s.roundTrip(ctx, e, base, q, header)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return s.judge(resp, err, q)
	}
	asked := challengesOf(resp)
	wanted := q.scopes
	for _, c := range asked {
		wanted = union(wanted, splitScopes(c.params["scope"]))
	}
	s.forget(e, header)
	again := ""
	if resp.Request.URL.Host == base.Host && len(asked) > 0 {
		again, err = s.authorization(ctx, e, asked, wanted)
		if err != nil {
			drain(resp)
			return nil, fault.In(err, "%s %q", q.title(), target(base, q))
		}
	}
	switch {
	case again == "" && onlyBasic(asked) && s.credentials(e).anonymous():
		drain(resp)
		return nil, fault.New(fault.Unauthorized, "%s %q: no basic auth credentials", q.title(), target(base, q))
	case again == "" || again == header && strings.HasPrefix(header, "Basic "):
		return s.judge(resp, nil, q)
	}
	drain(resp)
	resp, err = s.roundTrip(ctx, e, base, q, again)
	return s.judge(resp, err, q)
}

func onlyBasic(list []challenge) bool {
	return len(list) == 1 && list[0].scheme == "basic"
}

// judge turns an answer that was no into an error.
func (s *session) judge(resp *http.Response, err error, q *request) (*http.Response, error) {
	if err != nil || q.any || resp.StatusCode < 300 {
		return resp, err
	}
	defer drain(resp)
	return nil, refusal(resp)
}

// retrying calls ask until it succeeds, fails for good or has been tried often enough. A mirror is asked once: the next endpoint is the
// better second try.
func (s *session) retrying(ctx context.Context, e *endpoint, ask func() (*http.Response, error), once bool) (*http.Response, error) {
	var waited time.Duration
	for try := 1; ; try++ {
		resp, err := ask()
		if err == nil || ctx.Err() != nil || once || e.mirror || try >= maxTries {
			return resp, err
		}
		wait, again := backOff(err, try)
		if !again || waited+wait > totalWait {
			return resp, err
		}
		waited += wait
		s.c.log.Debug("registry is asked again", "host", e.host(), "in", wait, "error", err)
		if err := s.c.sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// backOff says whether and after how long a failure is worth another try.
func backOff(err error, try int) (time.Duration, bool) {
	pause := 200 * time.Millisecond << (2 * (try - 1)) // 0.2, 0.8, 3.2 s
	pause = pause/2 + rand.N(pause/2+1)
	if r := refusalOf(err); r != nil {
		switch r.Status {
		case http.StatusTooManyRequests:
			if r.After == 0 && try > 1 {
				return 0, false // a limit that says nothing of its end is not over in a second
			}
		case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusRequestTimeout:
		default:
			return 0, false
		}
		if r.After > longestWait {
			return 0, false
		}
		return max(pause, r.After), true
	}
	// A connection that broke is made anew. One that nobody takes, a name that is not known and a certificate that is wrong stay so.
	broken := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, errSilent)
	return pause, broken
}

// roundTrip sends one request, follows its redirects and gives the answer, whatever its status. The authorization goes to the host
// of base only.
func (s *session) roundTrip(ctx context.Context, e *endpoint, base url.URL, q *request, authorization string) (*http.Response, error) {
	at := target(base, q)
	u, err := url.Parse(at)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "")
	}
	method, seen := q.method, []string{}
	for {
		resp, err := s.exchange(ctx, e, base, q, method, u, authorization)
		if err != nil {
			return nil, err
		}
		location := resp.Header.Get("Location")
		if !isRedirect(resp.StatusCode) || location == "" || q.noBounce {
			return resp, nil
		}
		drain(resp)
		seen = append(seen, u.Redacted())
		next, err := follow(u, location, e)
		if err != nil {
			return nil, fault.In(err, "%s %q", q.title(), at)
		}
		for _, s := range seen {
			if s == next.Redacted() && s == next.String() {
				return nil, fault.New(fault.Unavailable, "%s %q: redirect loop: %s → %s", q.title(), at, strings.Join(seen, " → "), s)
			}
		}
		if len(seen) > maxRedirects {
			return nil, fault.New(fault.Unavailable, "%s %q: stopped after %d redirects, the last to %s", q.title(), at, maxRedirects, next.Host)
		}
		if resp.StatusCode == http.StatusSeeOther && method != http.MethodHead {
			method = http.MethodGet
		}
		u = next
	}
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// follow checks where a redirect leads. From TLS it never leads to plain HTTP, except where the operator called the registry insecure.
func follow(from *url.URL, location string, e *endpoint) (*url.URL, error) {
	next, err := from.Parse(location)
	if err != nil || next.Host == "" || next.Scheme != "http" && next.Scheme != "https" {
		return nil, fault.New(fault.Invalid, "redirected to %q, which is no web address", clean(location))
	}
	if from.Scheme == "https" && next.Scheme == "http" {
		if next.Host == from.Host {
			next.Scheme = "https" // a proxy in front of the registry that does not tell it about TLS
		} else if !e.insecure {
			return nil, fault.New(fault.Forbidden, "redirected from TLS to plain HTTP (%s)", next.Host)
		}
	}
	next.User, next.Fragment = nil, ""
	return next, nil
}

// exchange sends one request to one address and reads the answer's head. The body ends with an error when the server falls silent.
func (s *session) exchange(ctx context.Context, e *endpoint, base url.URL, q *request, method string, u *url.URL, authorization string) (*http.Response, error) {
	caller := ctx
	ctx, cancel := s.limited(ctx, q)
	w := newWatch(cancel, s.c.cfg.Stall, s.c.cfg.MinRate)
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, fault.Wrap(fault.Invalid, err, "")
	}
	for k, v := range q.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", s.c.cfg.UserAgent)
	if u.Host == base.Host && u.Scheme == base.Scheme {
		if u.Host == e.base.Host { // what hosts.toml says is for this server, not for the one that gives its tokens
			for k, v := range e.header {
				req.Header[k] = v
			}
		}
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
	}
	wait := q.wait
	if wait == 0 {
		wait = answerTimeout
	}
	if q.body != nil && method == q.method {
		body, err := q.body()
		if err != nil {
			cancel(nil)
			return nil, err
		}
		req.Body, req.ContentLength = &sending{ReadCloser: body, w: w, last: wait}, q.size
		if q.size == 0 {
			body.Close()
			req.Body = http.NoBody
		}
	}
	w.arm(wait)
	resp, err := e.transport.RoundTrip(req)
	w.disarm()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && errors.Is(cause, errSilent) {
			err = cause
		}
		cancel(nil)
		return nil, netFault(caller, method, u.Redacted(), err)
	}
	resp.Body = &receiving{body: resp.Body, w: w, cancel: cancel, ctx: ctx}
	return resp, nil
}

// limited gives an exchange's context, which may end for a reason of ours.
func (s *session) limited(ctx context.Context, q *request) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if q.long {
		return ctx, cancel
	}
	t := time.AfterFunc(wholeTimeout, func() { cancel(fmt.Errorf("%w: not done after %v", errSilent, wholeTimeout)) })
	return ctx, func(cause error) {
		t.Stop()
		cancel(cause)
	}
}

// target gives the address of a request.
func target(base url.URL, q *request) string {
	u := base
	if q.url != nil {
		u = *q.url
	} else {
		u.Path += q.path
	}
	if len(q.query) > 0 {
		if u.RawQuery != "" {
			u.RawQuery += "&" // what the server gave stays as it is: it may be signed
		}
		u.RawQuery += q.query.Encode()
	}
	return u.String()
}

// title gives the method as Go's HTTP client writes it in errors: Get.
func (q *request) title() string {
	m := q.method
	if q.says != "" {
		m = q.says
	}
	return m[:1] + strings.ToLower(m[1:])
}

// drain closes an answer; what little is left of it is read so that the connection can be used again.
func drain(resp *http.Response) {
	if resp == nil {
		return
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}
