package page

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/catalog"
	"berth/registry/storage"
)

//go:embed templates/*.html static/*
var files embed.FS

// Config is what the pages need.
type Config struct {
	Catalog *catalog.Catalog
	Storage *storage.Store
	Access  access.Decider

	// SignIn checks the name and password that came with a request; Unauthorized when they are wrong. still says later who that
	// is by then, and with which rights; Unauthorized ends the session. nil: nobody can sign in.
	SignIn func(r *http.Request, name, password string) (who access.Subject, still func(context.Context) (access.Subject, error), err error)
	// Guarded reports whether users are told from strangers: without, nobody is asked to sign in. nil: they are.
	Guarded func() bool

	URL   string // where clients reach the registry, https://HOST[:PORT]; "": the host that the visitor asked
	Title string // of the site; "": Registry
	Log   *slog.Logger
}

// Pages serves the pages. It is made by New and needs no closing.
type Pages struct {
	cfg       Config
	templates map[string]*template.Template
	sessions  *sessions
	rendered  rendered
	version   string // of style sheet and icon: part of their addresses
	mux       *http.ServeMux
	cross     *http.CrossOriginProtection
}

// New makes the pages. A template that does not parse is a defect of the program.
func New(cfg Config) (*Pages, error) {
	if cfg.Title == "" {
		cfg.Title = "Registry"
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	p := &Pages{cfg: cfg, templates: map[string]*template.Template{}, sessions: newSessions(), mux: http.NewServeMux(), cross: http.NewCrossOriginProtection()}
	for _, name := range []string{"list", "repository", "image", "edit", "signin", "error"} {
		t, err := template.New("").Funcs(funcs()).ParseFS(files, "templates/layout.html", "templates/"+name+".html")
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "page %s", name)
		}
		p.templates[name] = t
	}
	h := sha256.New()
	for _, name := range []string{"style.css", "icon.svg"} {
		data, err := files.ReadFile("static/" + name)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "page %s", name)
		}
		h.Write(data)
	}
	p.version = hex.EncodeToString(h.Sum(nil))[:12]
	p.mux.HandleFunc("GET /{$}", p.list)
	p.mux.HandleFunc("GET /search", p.list)
	p.mux.HandleFunc("GET /o/{org}", p.list)
	p.mux.HandleFunc("GET /r/{name...}", p.show)
	p.mux.HandleFunc("GET /edit/{name...}", p.edit)
	p.mux.HandleFunc("POST /edit/{name...}", p.save)
	p.mux.HandleFunc("POST /star/{name...}", p.star)
	p.mux.HandleFunc("GET /signin", p.signInForm)
	p.mux.HandleFunc("POST /signin", p.signIn)
	p.mux.HandleFunc("POST /signout", p.signOut)
	p.mux.HandleFunc("GET /static/{file}", p.static)
	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.fail(w, r, fault.New(fault.NotFound, "There is no such page."))
	})
	return p, nil
}

// policy allows this origin's style sheet, icon and forms, and nothing else.
const policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// maxForm is the largest form that is read, in bytes: a long description, escaped at worst.
const maxForm = 256 << 10

// ServeHTTP answers one request.
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Cache-Control", "no-store") // pages differ by who looks
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := p.cross.Check(r); err != nil {
		p.fail(w, r, fault.New(fault.Forbidden, "This was asked by a page of another site, and is refused."))
		return
	}
	p.mux.ServeHTTP(w, r)
}

// A frame is what the layout needs around every page.
type frame struct {
	Title     string // of the page
	Site      string
	Version   string // of what is static
	Query     string
	User      string
	Form      string // the session's form token
	CanSignIn bool
	Here      string // path to come back to after signing in
	View      any
}

// visitor gives who looks, and his session, nil for a stranger.
func (p *Pages) visitor(r *http.Request) (access.Subject, *session) {
	s := p.sessions.find(r, p.cookieName(r, "session"))
	if s == nil {
		return access.Subject{}, nil
	}
	who, err := s.still(r.Context())
	switch {
	case err == nil:
		return who, s
	case fault.Is(err, fault.Unauthorized):
		p.sessions.end(s)
	default: // a directory that does not answer: for this request he is a stranger
		p.cfg.Log.Warn("who has signed in cannot be looked up", "user", s.name, "error", err)
	}
	return access.Subject{}, nil
}

// canSignIn reports whether signing in is offered.
func (p *Pages) canSignIn() bool {
	return p.cfg.SignIn != nil && (p.cfg.Guarded == nil || p.cfg.Guarded())
}

// render writes a page. Templates are executed before the status is sent, so that a failure is seen as one.
func (p *Pages) render(w http.ResponseWriter, r *http.Request, status int, name, title string, view any) {
	who, s := p.visitor(r)
	f := frame{Title: title, Site: p.cfg.Title, Version: p.version, Query: r.URL.Query().Get("q"), User: who.Name, CanSignIn: p.canSignIn(), Here: r.URL.RequestURI(), View: view}
	if s != nil {
		f.Form = s.form
	}
	var b bytes.Buffer
	if err := p.templates[name].ExecuteTemplate(&b, "layout", f); err != nil {
		p.cfg.Log.Error("a page could not be made", "page", name, "path", r.URL.Path, "error", err)
		http.Error(w, "This page could not be made; the registry's log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// problem is the view of the error page.
type problem struct {
	Status  int
	Heading string
	Text    string
	SignIn  bool
}

// fail shows an error. What is nobody's input is logged, and not shown.
func (p *Pages) fail(w http.ResponseWriter, r *http.Request, err error) {
	who, _ := p.visitor(r)
	v := problem{Text: err.Error()}
	switch fault.KindOf(err) {
	case fault.NotFound:
		v.Status, v.Heading = http.StatusNotFound, "Not found"
		v.SignIn = who.Anonymous() && p.canSignIn()
	case fault.Forbidden:
		v.Status, v.Heading = http.StatusForbidden, "Not allowed"
	case fault.Unauthorized:
		v.Status, v.Heading = http.StatusForbidden, "Sign in first"
		v.SignIn = p.canSignIn()
	case fault.Invalid:
		v.Status, v.Heading = http.StatusBadRequest, "That cannot be done"
	default:
		v.Status, v.Heading, v.Text = http.StatusServiceUnavailable, "Something is wrong", "The registry could not answer; its log says why."
		if r.Context().Err() == nil {
			p.cfg.Log.Error("a page failed", "path", r.URL.Path, "error", err)
		}
	}
	p.render(w, r, v.Status, "error", v.Heading, v)
}

// may asks a right. Without the right to pull a repository is not found, whether it exists or not.
func (p *Pages) may(r *http.Request, who access.Subject, repository string, a access.Action) error {
	pull, err := p.cfg.Access.Allowed(r.Context(), who, repository, access.Pull)
	if err != nil {
		return err
	}
	if !pull {
		return notFound(repository)
	}
	if a == access.Pull {
		return nil
	}
	ok, err := p.cfg.Access.Allowed(r.Context(), who, repository, a)
	switch {
	case err != nil:
		return err
	case ok:
		return nil
	case who.Anonymous():
		return fault.New(fault.Unauthorized, "This is for people who have signed in.")
	}
	return fault.New(fault.Forbidden, "You do not have the %s right on %s.", a, repository)
}

func notFound(repository string) error {
	return fault.New(fault.NotFound, "There is no repository %s, or you may not see it.", repository)
}

// static serves the style sheet and the icon; they change with the program only, and their addresses with them.
func (p *Pages) static(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	data, err := files.ReadFile("static/" + name)
	if err != nil {
		p.fail(w, r, fault.New(fault.NotFound, "There is no such page."))
		return
	}
	kind := "text/css; charset=utf-8"
	if strings.HasSuffix(name, ".svg") {
		kind = "image/svg+xml"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "public, max-age=60")
	if r.URL.Query().Get("v") == p.version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	w.Write(data)
}
