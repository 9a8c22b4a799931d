package page

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/base/fault"
	"berth/registry/access"
)

// Bounds of sessions.
const (
	sessionLife = 12 * time.Hour
	sessionIdle = 2 * time.Hour
	maxSessions = 10_000
)

// A session is somebody who has signed in. It is not changed after it was made, but for seen.
type session struct {
	id    [sha256.Size]byte // digest of what the cookie holds
	name  string            // of who has signed in, for messages
	still func(context.Context) (access.Subject, error)
	form  string // token that each of its forms carries
	made  time.Time
	seen  time.Time // belongs to sessions.mu
}

// sessions are all of them, in memory.
type sessions struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]*session
}

func newSessions() *sessions { return &sessions{all: map[[sha256.Size]byte]*session{}} }

// begin makes a session and gives what its cookie holds. When there are too many, those not seen for longest go.
func (s *sessions) begin(name string, still func(context.Context) (access.Subject, error)) string {
	key, now := rand.Text()+rand.Text(), time.Now()
	n := &session{id: sha256.Sum256([]byte(key)), name: name, still: still, form: rand.Text(), made: now, seen: now}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= maxSessions {
		s.makeRoom(now)
	}
	s.all[n.id] = n
	return key
}

// makeRoom drops sessions that are over and, where that is not enough, the tenth not seen for longest. mu is held.
func (s *sessions) makeRoom(now time.Time) {
	var left []*session
	for id, o := range s.all {
		if o.over(now) {
			delete(s.all, id)
		} else {
			left = append(left, o)
		}
	}
	if len(left) < maxSessions {
		return
	}
	slices.SortFunc(left, func(a, b *session) int { return a.seen.Compare(b.seen) })
	for _, o := range left[:maxSessions/10] {
		delete(s.all, o.id)
	}
}

func (o *session) over(now time.Time) bool {
	return now.Sub(o.made) > sessionLife || now.Sub(o.seen) > sessionIdle
}

// find gives the session of a request's cookie, nil for none.
func (s *sessions) find(r *http.Request, cookie string) *session {
	c, err := r.Cookie(cookie)
	if err != nil {
		return nil
	}
	id, now := sha256.Sum256([]byte(c.Value)), time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.all[id]
	if o == nil || o.over(now) {
		delete(s.all, id)
		return nil
	}
	o.seen = now
	return o
}

func (s *sessions) end(o *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, o.id)
}

// secure reports whether the visitor's browser speaks TLS, to us or to a proxy in front.
func (p *Pages) secure(r *http.Request) bool {
	return r.TLS != nil || strings.HasPrefix(p.cfg.URL, "https://")
}

// cookieName is the name of a cookie. Over TLS it has the prefix that browsers accept from this very host only, with Secure
// and for the whole path.
func (p *Pages) cookieName(r *http.Request, what string) string {
	if p.secure(r) {
		return "__Host-berth-" + what
	}
	return "berth-" + what
}

// setCookie sets a cookie for this host; maxAge in seconds, negative removes it.
func (p *Pages) setCookie(w http.ResponseWriter, r *http.Request, what, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{Name: p.cookieName(r, what), Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true,
		Secure: p.secure(r), SameSite: http.SameSiteLaxMode})
}

// signInView is the view of the sign-in page.
type signInView struct {
	Name, Next, Form, Problem string
}

// signInForm shows the form. Its token is in a cookie as well, because there is no session that could know it.
func (p *Pages) signInForm(w http.ResponseWriter, r *http.Request) {
	p.askToSignIn(w, r, http.StatusOK, signInView{Next: r.URL.Query().Get("next")})
}

func (p *Pages) askToSignIn(w http.ResponseWriter, r *http.Request, status int, v signInView) {
	if !p.canSignIn() {
		p.fail(w, r, fault.New(fault.NotFound, "Nobody can sign in here: this registry knows no users."))
		return
	}
	v.Form, v.Next = rand.Text(), local(v.Next)
	p.setCookie(w, r, "signin", v.Form, 3600)
	p.render(w, r, status, "signin", "Sign in", v)
}

// signIn checks the password and begins a session.
func (p *Pages) signIn(w http.ResponseWriter, r *http.Request) {
	v := signInView{Name: r.PostFormValue("name"), Next: r.PostFormValue("next")}
	c, err := r.Cookie(p.cookieName(r, "signin"))
	if err != nil || !same(c.Value, r.PostFormValue("form")) {
		v.Problem = "The form was too old, or your browser keeps no cookies. Please try again."
		p.askToSignIn(w, r, http.StatusForbidden, v)
		return
	}
	if !p.canSignIn() {
		p.askToSignIn(w, r, http.StatusNotFound, v)
		return
	}
	who, still, err := p.cfg.SignIn(r, v.Name, r.PostFormValue("password"))
	switch {
	case err == nil && !who.Anonymous():
	case err == nil || fault.Is(err, fault.Unauthorized):
		v.Problem = "Name or password is wrong."
		p.askToSignIn(w, r, http.StatusForbidden, v)
		return
	case fault.Is(err, fault.Unavailable):
		v.Problem = "Signing in is not possible at the moment: " + err.Error()
		p.askToSignIn(w, r, http.StatusServiceUnavailable, v)
		return
	default:
		p.fail(w, r, err)
		return
	}
	if old := p.sessions.find(r, p.cookieName(r, "session")); old != nil {
		p.sessions.end(old)
	}
	p.setCookie(w, r, "signin", "", -1)
	p.setCookie(w, r, "session", p.sessions.begin(who.Name, still), int(sessionLife.Seconds()))
	http.Redirect(w, r, local(v.Next), http.StatusSeeOther)
}

// signOut ends the session.
func (p *Pages) signOut(w http.ResponseWriter, r *http.Request) {
	_, s := p.visitor(r)
	if s == nil || !p.fromOurForm(r, s) {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	p.sessions.end(s)
	p.setCookie(w, r, "session", "", -1)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// fromOurForm reports whether a POST carries its session's token.
func (p *Pages) fromOurForm(r *http.Request, s *session) bool {
	return s != nil && same(s.form, r.PostFormValue("form"))
}

func same(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// local gives a path of this site to go to; anything else is the first page. What begins with // or /\ is another host.
func local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Opaque != "" || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") || strings.HasPrefix(u.Path, "//") || strings.HasPrefix(u.Path, "/signin") {
		return "/"
	}
	return next
}
