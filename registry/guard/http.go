package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"berth/auth"
	"berth/auth/token"
	"berth/base/fault"
	"berth/registry/access"
)

// Challenge writes the header WWW-Authenticate for somebody who wanted to do something to a repository; "" is none. Status
// and body are the caller's.
//
// Bearer and Basic are not offered side by side: Docker's client would take Basic then, and fail when it has no password,
// where a token for anonymous pulls would do. Basic is understood all the same when it is sent.
func (g *Guard) Challenge(w http.ResponseWriter, r *http.Request, repository string, actions ...access.Action) {
	if g.cfg.BasicOnly || !strings.HasPrefix(r.URL.Path, "/v2") {
		w.Header().Set("WWW-Authenticate", `Basic realm="`+Service+`"`)
		return
	}
	text := fmt.Sprintf(`Bearer realm="%s/token",service="%s"`, g.url(r), Service)
	if scope := scopeOf(r, repository, actions); scope != "" {
		text += `,scope="` + scope + `"`
	}
	if scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		reason := "insufficient_scope" // RFC 6750 section 3.1
		if _, err := g.issuer.Check(strings.TrimSpace(shown)); err != nil {
			reason = "invalid_token"
		}
		text += `,error="` + reason + `"`
	}
	w.Header().Set("WWW-Authenticate", text)
}

// scopeOf gives the scope that a client has to ask for.
func scopeOf(r *http.Request, repository string, actions []access.Action) string {
	if repository == "" {
		if r.URL.Path == "/v2/_catalog" {
			return "registry:catalog:*"
		}
		return ""
	}
	if access.CheckRepository(repository) != nil {
		return "" // would not stand in a header safely
	}
	names := []string{}
	if slices.Contains(actions, access.Push) || slices.Contains(actions, access.Delete) {
		names = append(names, string(access.Pull)) // clients read what they change
	}
	for _, a := range actions {
		if !slices.Contains(names, string(a)) {
			names = append(names, string(a))
		}
	}
	return token.Scope{Type: "repository", Name: repository, Actions: names}.String()
}

// demand is a whole answer 401, for the registry's own routes.
func (g *Guard) demand(w http.ResponseWriter, r *http.Request, repository string, actions ...access.Action) {
	g.Challenge(w, r, repository, actions...)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	json.NewEncoder(w).Encode(map[string]string{"message": "authentication required"})
}

// url gives where the client reaches the registry.
func (g *Guard) url(r *http.Request) string {
	if g.cfg.URL != "" {
		return strings.TrimSuffix(g.cfg.URL, "/")
	}
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if g.trusted(peer(r)) {
		if p := r.Header.Get("X-Forwarded-Proto"); p == "http" || p == "https" {
			scheme = p
		}
		if h := r.Header.Get("X-Forwarded-Host"); h != "" {
			host = h
		}
	}
	if strings.ContainsAny(host, "\"\\,/ \t") {
		host = "localhost" // would not stand in a header safely
	}
	return scheme + "://" + host
}

// From gives the client's address: the nearest one that is not a proxy of ours.
func (g *Guard) From(r *http.Request) netip.Addr {
	at := peer(r)
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && g.trusted(at); i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		at = a.Unmap()
	}
	return at
}

func (g *Guard) trusted(a netip.Addr) bool {
	return slices.ContainsFunc(g.cfg.Proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

func peer(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddrPort(r.RemoteAddr)
	return a.Addr().Unmap()
}

// refuseToken answers for the token service, with the errors that Docker's client prints.
func (g *Guard) refuseToken(w http.ResponseWriter, r *http.Request, err error) {
	status, code := http.StatusInternalServerError, "UNKNOWN"
	message := err.Error()
	var slow *auth.Slow
	switch kind := fault.KindOf(err); {
	case errors.As(err, &slow):
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(slow.After.Seconds()))))
		status, code = http.StatusTooManyRequests, "TOOMANYREQUESTS"
	case kind == fault.Unauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="`+Service+`"`)
		status, code = http.StatusUnauthorized, "UNAUTHORIZED"
	case kind == fault.Forbidden:
		status, code = http.StatusForbidden, "DENIED"
	case kind == fault.Invalid:
		status, code = http.StatusBadRequest, "UNSUPPORTED"
	case kind == fault.Unavailable, kind == fault.Deadline, kind == fault.Cancelled:
		g.log.Warn("sign-in could not be checked", "error", err)
		status, code, message = http.StatusServiceUnavailable, "UNAVAILABLE", "the password could not be checked, try again"
	default:
		g.log.Error("token request failed", "error", err)
		message = "unknown error"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{
		"errors":  []map[string]string{{"code": code, "message": message}},
		"details": message, // what older clients print
	})
}

// refused logs that somebody was not let in.
func (g *Guard) refused(name string, from netip.Addr, why string) {
	g.log.Warn("sign-in refused", "audit", true, "user", name, "from", from, "why", why)
}

// changed logs that somebody changed users or rights.
func (g *Guard) changed(r *http.Request, s access.Subject, what string, args ...any) {
	by := s.Name
	if by == "" {
		by = "this machine"
	}
	g.log.Info(what, append([]any{"audit", true, "by", by, "from", g.From(r)}, args...)...)
}
