package git

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/session/sshforward"
	"github.com/moby/buildkit/util/gitutil"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"berth/base/fault"
	"berth/build/graph"
	"berth/build/session"
)

// resolve tells what the ref means: to a build that was told before, the same.
func (s *Source) resolve(ctx context.Context, r *repository, g session.Group, log io.Writer) (*version, error) {
	byCommit := ""
	if r.byCommit {
		byCommit = r.checksum
	}
	v, _, err := s.told.Get(ctx, session.IDs(g), strings.Join([]string{r.remote, r.ref, byCommit, r.bundleKey()}, "\x00"), func() (*version, error) { return s.ask(ctx, r, g, log) })
	if err == nil && r.checksum != "" && !r.byCommit {
		err = v.insist(r.checksum)
	}
	return v, err
}

// ask finds what the ref means now.
func (s *Source) ask(ctx context.Context, r *repository, g session.Group, log io.Writer) (*version, error) {
	if r.bundle != nil {
		return s.askBundle(ctx, r, g, log)
	}
	if gitutil.IsCommitSHA(r.ref) {
		return &version{ref: r.ref, object: r.ref}, nil
	}
	if r.byCommit {
		ref := r.ref
		switch {
		case ref == "":
			ref = r.checksum
		case !strings.HasPrefix(ref, "refs/"):
			ref = "refs/heads/" + ref // what git prefers
		}
		return &version{ref: ref, object: r.checksum}, nil
	}
	p, done, err := s.connect(ctx, r, g, log)
	if err != nil {
		return nil, err
	}
	defer done()
	args := []string{"ls-remote", "--symref", "--", "origin", "HEAD"}
	if r.ref != "" {
		args = []string{"ls-remote", "--", "origin", r.ref, r.ref + "^{}"}
	}
	out, err := p.run(ctx, args...)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "failed to fetch remote %s", r.plainRemote())
	}
	return choose(out, r.ref)
}

// connect makes a program that reaches the remote, with the client's secrets. done is to be called when it is not used any more.
func (s *Source) connect(ctx context.Context, r *repository, g session.Group, log io.Writer) (p *program, done func(), err error) {
	if p, err = s.git(ctx); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(s.cfg.Root, 0o700); err != nil {
		return nil, nil, err
	}
	p.local, p.remote, p.log = false, r.remote, log
	p.hide(r.remote)
	p.config = append(insteadOf(r.remote), advice(r)...)
	var cleanups []func()
	undo := func() {
		for _, c := range cleanups {
			c()
		}
	}
	defer func() {
		if err != nil { // done is nil then, whatever it was before
			undo()
		}
	}()
	if err := s.authorize(ctx, p, r, g); err != nil {
		return nil, nil, err
	}
	if r.sshID != "" {
		sock, close, err := s.agent(ctx, r.sshID, g)
		if err != nil {
			return nil, nil, err
		}
		cleanups = append(cleanups, close)
		p.sshSock = sock
	}
	if r.knownHosts != "" {
		f, err := os.CreateTemp(s.cfg.Root, "known-hosts-")
		if err != nil {
			return nil, nil, err
		}
		cleanups = append(cleanups, func() { _ = os.Remove(f.Name()) })
		_, err = io.WriteString(f, r.knownHosts)
		if err2 := f.Close(); err == nil {
			err = err2
		}
		if err != nil {
			return nil, nil, err
		}
		p.known = f.Name()
	}
	return p, undo, nil
}

// advice keeps git from explaining what a detached HEAD is, unless the build wants it to.
func advice(r *repository) []string {
	if r.advice {
		return nil
	}
	return []string{"advice.detachedHead", "false"}
}

// insteadOf lets git, which knows the remote without its password from files, use it with the password.
func insteadOf(remote string) []string {
	u, err := url.Parse(remote)
	if err != nil || u.User == nil {
		return nil
	}
	base := url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host, Path: "/"}
	return []string{"url." + base.String() + ".insteadOf", graph.Redact(base.String())}
}

// authorize gives git the token or header that the client has for the remote. A submodule has none of its own: whoever wrote its address may
// be anybody, and it gets what would have been sent there for the repository that the build names.
func (s *Source) authorize(ctx context.Context, p *program, r *repository, g session.Group) error {
	if r.of != nil {
		r = r.of
	}
	u, err := url.Parse(r.remote)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || s.cfg.Sessions == nil || len(session.IDs(g)) == 0 {
		return nil
	}
	// The host's own secret first, and a header before a token.
	for _, c := range []struct {
		id    string
		token bool
	}{
		{r.headerSecret + "." + u.Host, false}, {r.tokenSecret + "." + u.Host, true}, {r.headerSecret, false}, {r.tokenSecret, true},
	} {
		if c.id == "" || strings.HasPrefix(c.id, ".") {
			continue
		}
		v, err := s.cfg.Sessions.Secret(ctx, g, c.id)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return fault.In(err, "ask for the secret %s", c.id)
		}
		header := strings.TrimSpace(string(v))
		if c.token {
			header = "basic " + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "x-access-token:%s", header))
		}
		if strings.ContainsAny(header, "\r\n\x00") {
			return fault.New(fault.Invalid, "the secret %s has more than one line", c.id)
		}
		p.config = append(p.config, "http."+scope(r.remote)+".extraHeader", "Authorization: "+header)
		p.secrets = append(p.secrets, string(v), header)
		return nil
	}
	return nil
}

// scope is where a token may be sent: to the remote, and, as everybody's tools do, to all of GitHub for a repository there.
func scope(remote string) string {
	for _, hub := range []string{"https://github.com/", "https://www.github.com/"} {
		if strings.HasPrefix(remote, hub) {
			return hub
		}
	}
	return redactUser(remote)
}

// redactUser leaves user and password out: git matches what it connects to.
func redactUser(remote string) string {
	u, err := url.Parse(remote)
	if err != nil {
		return remote
	}
	u.User = nil
	return u.String()
}

// agent gives a socket that leads to the client's ssh agent.
func (s *Source) agent(ctx context.Context, id string, g session.Group) (sock string, closeIt func(), err error) {
	if s.cfg.Sessions == nil {
		return "", nil, fault.New(fault.NotFound, "no SSH key %q forwarded from the client", id)
	}
	var caller session.Caller
	err = s.cfg.Sessions.Any(ctx, g, func(ctx context.Context, _ string, c session.Caller) error {
		if err := sshforward.CheckSSHID(ctx, c, id); err != nil {
			if st, ok := status.FromError(err); ok && st.Code() == codes.Unimplemented {
				return fault.New(fault.NotFound, "no SSH key %q forwarded from the client", id)
			}
			return err
		}
		caller = c
		return nil
	})
	if err != nil {
		return "", nil, err
	}
	sock, stop, err := sshforward.MountSSHSocket(ctx, caller, sshforward.SocketOpt{ID: id, UID: os.Geteuid(), GID: os.Getegid(), Mode: 0o700})
	if err != nil {
		return "", nil, fault.In(err, "forward the client's ssh agent")
	}
	return sock, func() {
		_ = stop()
		_ = os.RemoveAll(filepath.Dir(sock))
	}, nil
}

// recent reports whether what "git version" prints is at least 2.31.
func recent(out string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(strings.TrimPrefix(strings.TrimSpace(out), "git version "), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 2 || major == 2 && minor >= 31
}

// commitDigest is a commit as provenance has it. Its algorithm is none of the registered ones.
func commitDigest(object string) digest.Digest {
	if len(object) == 64 {
		return digest.Digest("sha256:" + object)
	}
	return digest.Digest("sha1:" + object)
}
