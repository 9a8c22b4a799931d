package guard

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"berth/auth"
	"berth/auth/htpasswd"
	"berth/auth/ldap"
	"berth/auth/secret"
	"berth/auth/token"
	"berth/auth/user"
	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/door"
)

// Service is the name that tokens are for, in challenges and requests of tokens.
const Service = "berth-registry"

// Config says who knows the users, and what strangers are told. Dir is needed.
type Config struct {
	Dir      string        `json:"-"`                  // ROOT/auth: keys, accounts, rights
	Htpasswd string        `json:"htpasswd,omitempty"` // password file
	LDAP     []ldap.Config `json:"ldap,omitempty"`     // directories, asked in order
	Admins   []string      `json:"admins,omitempty"`   // principals who administrate the site: alice, @dev
	Guarded  bool          `json:"guarded,omitempty"`  // strangers are not let in, even while there is no user

	// Visibility and Creation replace the site's when they are not "": see access.Site.
	Visibility access.Visibility `json:"visibility,omitempty"`
	Creation   access.Creation   `json:"creation,omitempty"`

	URL           string         `json:"url,omitempty"`             // where clients reach the registry: https://HOST[:PORT]; "" means the one that they asked
	Proxies       []netip.Prefix `json:"proxies,omitempty"`         // whose X-Forwarded-For and X-Forwarded-Proto are believed
	BasicOnly     bool           `json:"basicOnly,omitempty"`       // challenge for Basic and not for tokens
	TokenSeconds  int            `json:"tokenSeconds,omitempty"`    // life of an access token; 0 means 300
	RefreshDays   int            `json:"refreshDays,omitempty"`     // life of what docker login stores; 0 means 90
	RememberedFor int            `json:"rememberSeconds,omitempty"` // for how long a right password is not checked again; 0 means 60

	Log *slog.Logger `json:"-"`
}

// Guard is open from Open to Close. It is an access.Decider.
type Guard struct {
	cfg      Config
	log      *slog.Logger
	rights   *access.Store
	accounts *user.Store
	people   *auth.Cache // before all that know users
	damper   auth.Damper
	issuer   *token.Issuer
	local    string // the local key
	admins   []access.Principal

	guarded atomic.Bool
	closers []func() error
	stop    context.CancelFunc
	swept   sync.WaitGroup
}

// Open opens the rights and accounts of a registry, or makes them.
func Open(cfg Config) (*Guard, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.RefreshDays <= 0 {
		cfg.RefreshDays = 90
	}
	g := &Guard{cfg: cfg, log: cfg.Log}
	if err := g.open(); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func (g *Guard) open() error {
	var err error
	if g.rights, err = access.Open(filepath.Join(g.cfg.Dir, "rights.db")); err != nil {
		return err
	}
	g.closers = append(g.closers, g.rights.Close)
	if g.accounts, err = user.Open(filepath.Join(g.cfg.Dir, "accounts.db")); err != nil {
		return err
	}
	g.closers = append(g.closers, g.accounts.Close)
	keys, err := token.LoadKeys(filepath.Join(g.cfg.Dir, "token.key"))
	if err != nil {
		return err
	}
	g.issuer = &token.Issuer{Keys: keys, Name: Service, Service: Service, Life: time.Duration(g.cfg.TokenSeconds) * time.Second}
	if err := g.site(); err != nil {
		return err
	}
	if err := g.openPeople(); err != nil {
		return err
	}
	g.local = secret.Token()
	if err := atomicfile.Write(filepath.Join(g.cfg.Dir, "local.key"), []byte(g.local+"\n"), 0o600); err != nil {
		return fault.Wrap(fault.Internal, err, "local key")
	}
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.swept.Go(func() { g.sweep(ctx) })
	return nil
}

// openPeople joins all that know users. The accounts come first: a directory cannot take over the name of one.
func (g *Guard) openPeople() error {
	chain := auth.Chain{g.accounts}
	if g.cfg.Htpasswd != "" {
		f, err := htpasswd.Open(g.cfg.Htpasswd, g.log)
		if err != nil {
			return err
		}
		chain = append(chain, f)
	}
	for _, c := range g.cfg.LDAP {
		c.Log = g.log
		d, err := ldap.New(c)
		if err != nil {
			return err
		}
		g.closers = append(g.closers, d.Close)
		chain = append(chain, d)
	}
	g.people = auth.NewCache(chain, time.Duration(g.cfg.RememberedFor)*time.Second)
	if len(chain) > 1 || g.cfg.Guarded {
		g.guarded.Store(true)
		return nil
	}
	return g.notice()
}

// notice finds out whether there is an account.
func (g *Guard) notice() error {
	if g.guarded.Load() {
		return nil // once guarded, it stays so until it is started anew: removing the last account opens nothing
	}
	empty, err := g.accounts.Empty()
	if err == nil && !empty {
		g.guarded.Store(true)
	}
	return err
}

// site applies what the configuration says of the site.
func (g *Guard) site() error {
	for _, a := range g.cfg.Admins {
		p, err := access.ParsePrincipal(a)
		if err == nil && (p == access.Anyone || p == access.SignedIn) {
			err = fault.New(fault.Invalid, "%q cannot administrate the site: name users or groups", a)
		}
		if err != nil {
			return fault.In(err, "admins")
		}
		g.admins = append(g.admins, p)
	}
	visibility, err := access.ParseVisibility(string(g.cfg.Visibility))
	if err != nil {
		return err
	}
	if g.cfg.Creation != "" {
		if _, err := access.ParseCreation(string(g.cfg.Creation)); err != nil {
			return fault.In(err, "creation")
		}
	}
	if visibility == "" && g.cfg.Creation == "" {
		return nil
	}
	return g.rights.SetSite(func(s *access.Site) error {
		if visibility != "" {
			s.Visibility = visibility
		}
		if g.cfg.Creation != "" {
			s.Creation = g.cfg.Creation
		}
		return nil
	})
}

// sweep removes tokens that have expired, now and every hour.
func (g *Guard) sweep(ctx context.Context) {
	for {
		if n, err := g.accounts.Sweep(time.Now()); err != nil {
			g.log.Error("expired tokens are not removed", "error", err)
		} else if n > 0 {
			g.log.Info("expired tokens removed", "count", n)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Hour):
		}
	}
}

// Close ends what Open began. Requests have ended before.
func (g *Guard) Close() error {
	if g.stop != nil {
		g.stop()
		g.swept.Wait()
	}
	var first error
	for i := len(g.closers) - 1; i >= 0; i-- {
		if err := g.closers[i](); err != nil && first == nil {
			first = err
		}
	}
	g.closers = nil
	return first
}

// Guarded reports whether users are told from strangers. It may become true while the registry runs, never false.
func (g *Guard) Guarded() bool { return g.guarded.Load() }

// Allowed decides by the rights as they are now.
func (g *Guard) Allowed(ctx context.Context, s access.Subject, repository string, a access.Action) (bool, error) {
	if !g.Guarded() {
		return true, nil
	}
	return g.rights.Allowed(ctx, s, repository, a)
}

// Visible reports whether the subject may see that a repository exists, whatever token he came with.
func (g *Guard) Visible(ctx context.Context, s access.Subject, repository string) (bool, error) {
	if !g.Guarded() {
		return true, nil
	}
	return g.rights.Visible(ctx, s, repository)
}

// Claim is told of a push to a repository that holds nothing yet: see access.Store.
func (g *Guard) Claim(_ context.Context, s access.Subject, repository string) error {
	if !g.Guarded() {
		return nil
	}
	return g.rights.Claim(s, repository)
}

// Door gives what the registry's own routes ask.
func (g *Guard) Door() *door.Door {
	return &door.Door{Who: g.Who, Challenge: g.demand, Access: g, Administrator: g.administrator, Log: g.log}
}

// normal gives the name by which attempts are counted: directories do not care for case.
func normal(name string) string { return strings.ToLower(name) }
