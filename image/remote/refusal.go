package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"berth/base/fault"
)

// Refusal is an answer that was no: what the registry said, in the words of Docker.
type Refusal struct {
	Status  int           // HTTP's
	Code    string        // the distribution spec's: DENIED, MANIFEST_UNKNOWN …; "" when the body had none
	Message string        // the text without the code
	Host    string        // who said so
	After   time.Duration // Retry-After; 0: not said
}

// Error gives "denied: requested access to the resource is denied", or what HTTP said.
func (r *Refusal) Error() string {
	if r.Code == "" {
		return r.Message
	}
	return strings.ToLower(strings.ReplaceAll(r.Code, "_", " ")) + ": " + r.Message
}

// refusalOf finds the registry's answer in an error.
func refusalOf(err error) *Refusal {
	var r *Refusal
	errors.As(err, &r)
	return r
}

// kind gives the fault kind of a refusal: by its code, else by its status.
func (r *Refusal) kind() fault.Kind {
	switch r.Code {
	case "UNAUTHORIZED":
		return fault.Unauthorized
	case "DENIED":
		return fault.Forbidden
	case "TOOMANYREQUESTS", "UNAVAILABLE":
		return fault.Unavailable
	case "NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "BLOB_UPLOAD_UNKNOWN":
		return fault.NotFound
	case "UNSUPPORTED":
		return fault.NotImplemented
	}
	switch s := r.Status; {
	case s == http.StatusUnauthorized:
		return fault.Unauthorized
	case s == http.StatusForbidden:
		return fault.Forbidden
	case s == http.StatusNotFound || s == http.StatusGone:
		return fault.NotFound
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s >= 500 && s != http.StatusNotImplemented:
		return fault.Unavailable
	case s == http.StatusConflict:
		return fault.Conflict
	case s == http.StatusMethodNotAllowed || s == http.StatusNotImplemented:
		return fault.NotImplemented
	}
	return fault.Invalid
}

// refusal reads an answer that was no. The body is read to its end or its bound; the caller closes it.
func refusal(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	r := parseRefusal(resp.StatusCode, resp.Header.Values("WWW-Authenticate"), body)
	r.After = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	if resp.Request != nil {
		r.Host = resp.Request.URL.Host
	}
	return &fault.Error{Kind: r.kind(), Err: r}
}

// parseRefusal finds a registry's reason: first what OAuth says in the challenge (RFC 6750), then the body as the spec has it, the Hub's
// {"details": …}, else the status alone.
func parseRefusal(status int, challenges []string, body []byte) *Refusal {
	r := &Refusal{Status: status}
	if status >= 400 && status < 500 {
		for _, c := range parseChallenges(challenges) {
			if c.scheme != "bearer" {
				continue
			}
			switch c.params["error"] {
			case "invalid_token":
				r.Code = "UNAUTHORIZED"
			case "insufficient_scope":
				r.Code = "DENIED"
			default:
				continue
			}
			r.Message = clean(c.params["error_description"])
			if r.Message == "" {
				r.Message = codeText[r.Code]
			}
			return r
		}
	}
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"`
	}
	err := json.Unmarshal(body, &doc)
	switch {
	case err == nil && len(doc.Errors) > 0:
		r.Code, r.Message = cleanCode(doc.Errors[0].Code), clean(doc.Errors[0].Message)
		if r.Message == "" {
			r.Message = codeText[r.Code]
		}
		if r.Message == "" {
			r.Message = "unknown error"
		}
		if len(doc.Errors) > 1 {
			r.Message += fmt.Sprintf(" (and %d more errors)", len(doc.Errors)-1)
		}
	case err == nil && doc.Details != "":
		r.Message = clean(doc.Details)
		r.Code = map[int]string{http.StatusUnauthorized: "UNAUTHORIZED", http.StatusTooManyRequests: "TOOMANYREQUESTS"}[status]
		if r.Code == "" {
			r.Code = "UNKNOWN"
		}
	case status >= 500:
		r.Message = fmt.Sprintf("received unexpected HTTP status: %d %s", status, http.StatusText(status))
	case status == http.StatusUnauthorized:
		r.Code, r.Message = "UNAUTHORIZED", codeText["UNAUTHORIZED"]
	case status == http.StatusForbidden:
		r.Code, r.Message = "DENIED", codeText["DENIED"]
	case status == http.StatusTooManyRequests:
		r.Code, r.Message = "TOOMANYREQUESTS", codeText["TOOMANYREQUESTS"]
	default:
		r.Message = fmt.Sprintf("received unexpected HTTP status: %d %s", status, http.StatusText(status))
		if t := clean(string(body)); t != "" && !strings.HasPrefix(t, "<") {
			r.Message += fmt.Sprintf(" (%s)", t)
		}
	}
	return r
}

// codeText are the texts of codes that came without one.
var codeText = map[string]string{
	"UNAUTHORIZED":        "authentication required",
	"DENIED":              "requested access to the resource is denied",
	"MANIFEST_UNKNOWN":    "manifest unknown",
	"NAME_UNKNOWN":        "repository name not known to registry",
	"BLOB_UNKNOWN":        "blob unknown to registry",
	"TOOMANYREQUESTS":     "too many requests",
	"UNSUPPORTED":         "The operation is unsupported.",
	"SIZE_INVALID":        "provided length did not match content length",
	"DIGEST_INVALID":      "provided digest did not match uploaded content",
	"NAME_INVALID":        "invalid repository name",
	"MANIFEST_INVALID":    "manifest invalid",
	"MANIFEST_UNVERIFIED": "manifest failed signature verification",
	"UNAVAILABLE":         "service unavailable",
}

// clean makes a server's text fit for a terminal and a log: one line, no control characters, bounded.
func clean(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < 0x20 || r == 127 || r >= 0x80 && r < 0xa0 }), " ")
	s = strings.ToValidUTF8(strings.TrimSpace(s), "?")
	const most = 512
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// cleanCode keeps a code to what codes are made of.
func cleanCode(s string) string {
	s = strings.ToUpper(strings.TrimSpace(s))
	if len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return r != '_' && (r < 'A' || r > 'Z') && (r < '0' || r > '9') }) || s == "" {
		return "UNKNOWN"
	}
	return s
}

// retryAfter reads the header: seconds or a date. What is in the past or makes no sense is 0.
func retryAfter(s string, now time.Time) time.Duration {
	if s == "" {
		return 0
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64); err == nil {
		if n < 0 || n > 1<<31 {
			return 0
		}
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// netFault gives a failed exchange its kind and the words of Go's HTTP client, which are Docker's: Get "URL": cause. ctx is the caller's.
func netFault(ctx context.Context, method, url string, err error) error {
	kind := fault.KindOf(err)
	if kind == fault.Deadline && ctx.Err() == nil {
		kind = fault.Internal // a dial's own time-out calls itself a deadline too; the caller has not set it
	}
	if kind == fault.Internal {
		kind = fault.Unavailable
		var unknown x509.UnknownAuthorityError
		var name x509.HostnameError
		var invalid x509.CertificateInvalidError
		var verify *tls.CertificateVerificationError
		var record tls.RecordHeaderError
		if errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid) || errors.As(err, &verify) ||
			errors.As(err, &record) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
			kind = fault.Internal // it is there, and will not be another one by itself
		}
		if string(record.RecordHeader[:]) == "HTTP/" {
			err = &plainAnswer{err}
		}
	}
	return fault.Wrap(kind, err, "%s %q", method[:1]+strings.ToLower(method[1:]), url)
}

// plainAnswer says that a server that was asked by TLS answered without, in the words of Go's HTTP client, which people look for.
type plainAnswer struct{ err error }

func (*plainAnswer) Error() string   { return "http: server gave HTTP response to HTTPS client" }
func (p *plainAnswer) Unwrap() error { return p.err }
