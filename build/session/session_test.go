package session

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	bksession "github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"google.golang.org/grpc"

	"berth/base/fault"
)

// door is an HTTP server with the manager behind POST /session, as the API has it.
func door(t *testing.T, m *Manager) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := m.HandleHTTP(context.WithoutCancel(r.Context()), w, r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// stock is a session of BuildKit's own library, dialled as docker does.
func stock(t *testing.T, s *httptest.Server, key string, attach ...bksession.Attachable) (id string, end func()) {
	t.Helper()
	c, err := bksession.NewSession(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range attach {
		c.Allow(a)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(context.Background(), func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return dialUpgrade(ctx, s.Listener.Addr().String(), proto, meta)
		})
	}()
	return c.ID(), func() { _ = c.Close(); <-done }
}

// dialUpgrade is what docker's client does.
func dialUpgrade(ctx context.Context, addr, proto string, meta map[string][]string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/session", nil)
	for k, v := range meta {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", proto)
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	var head []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); {
		if _, err := conn.Read(b); err != nil {
			return nil, err
		}
		head = append(head, b[0])
	}
	if !strings.HasPrefix(string(head), "HTTP/1.1 101") {
		_ = conn.Close()
		return nil, errors.New(string(head))
	}
	return conn, nil
}

func TestStockSession(t *testing.T) {
	m := NewManager(nil)
	defer m.Close()
	s := door(t, m)
	id, end := stock(t, s, "a place with ümlauts", secretsprovider.FromMap(map[string][]byte{"pw": []byte("x")}))
	c, err := m.Get(t.Context(), "mark:"+id)
	if err != nil {
		t.Fatal(err)
	}
	if c.SharedKey() != "a place with ümlauts" {
		t.Errorf("shared key %q", c.SharedKey())
	}
	if !c.Supports("/moby.buildkit.secrets.v1.Secrets/GetSecret") || c.Supports("/moby.filesync.v1.FileSync/DiffCopy") {
		t.Error("what the client has is not known")
	}
	if got, err := m.Secret(t.Context(), NewGroup("nobody-"+id[:3], id), "pw"); err != nil || string(got) != "x" {
		// The first of the group is not there: the next one is asked when patience is over.
		t.Errorf("secret %q %v", got, err)
	}
	if _, err := m.Secret(t.Context(), NewGroup(id), "other"); !fault.Is(err, fault.NotFound) || !errors.Is(err, secrets.ErrNotFound) {
		t.Errorf("a secret that nobody has: %v", err)
	}
	if cred, err := m.Credentials(t.Context(), NewGroup(id), "docker.io"); err != nil || cred.Username != "" {
		t.Errorf("a client without credentials: %+v %v", cred, err)
	}
	ctx := c.Context(t.Context())
	end()
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Error("a context of the session outlives it")
	}
	for deadline := time.Now().Add(time.Minute); len(m.Sessions()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a session that has ended is still found")
		}
	}
}

func TestGetWaits(t *testing.T) {
	m := NewManager(nil)
	defer m.Close()
	s := door(t, m)
	ids := make(chan string)
	go func() {
		id, end := stock(t, s, "k")
		ids <- id
		<-ids
		end()
	}()
	id := <-ids
	if _, err := m.Get(t.Context(), id); err != nil {
		t.Error(err)
	}
	ids <- ""
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := m.Get(ctx, "nobody"); err == nil {
		t.Error("nobody was found")
	}
	if err := m.Any(t.Context(), nil, nil); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "no active sessions") {
		t.Errorf("of no group: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	m := NewManager(nil)
	s := door(t, m)
	_, end, err := m.Local(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	taken := m.Sessions()[0]
	for _, x := range []struct {
		name, proto, id, want string
	}{
		{"no upgrade", "", "abc", "no upgrade proto"},
		{"another protocol", "websocket", "abc", "protocol websocket not supported"},
		{"no id", "h2c", "", "invalid session id"},
		{"a path as id", "h2c", "../x", "invalid session id"},
		{"a long id", "h2c", strings.Repeat("x", 200), "invalid session id"},
		{"an id that is taken", "h2c", taken, "already exists"},
	} {
		req, _ := http.NewRequest(http.MethodPost, s.URL, nil)
		req.Header.Set(headerID, x.id)
		if x.proto != "" {
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", x.proto)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 200)
		n, _ := resp.Body.Read(body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body[:n]), x.want) {
			t.Errorf("%s: %d %s", x.name, resp.StatusCode, body[:n])
		}
	}
	end()
	if len(m.Sessions()) != 0 {
		t.Error("a session within the process does not end")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Local(t.Context(), "k"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a closed manager: %v", err)
	}
	if _, err := m.Get(t.Context(), "x"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a closed manager: %v", err)
	}
}

// keys is a client's credentials.
type keys struct {
	auth.UnimplementedAuthServer
	asked    string
	user, pw string
}

func (k *keys) Register(s *grpc.Server) { auth.RegisterAuthServer(s, k) }

func (k *keys) Credentials(_ context.Context, r *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	k.asked = r.Host
	return &auth.CredentialsResponse{Username: k.user, Secret: k.pw}, nil
}

func TestCredentials(t *testing.T) {
	m := NewManager(nil)
	defer m.Close()
	k := &keys{user: "me", pw: "secret"}
	id, end, err := m.Local(t.Context(), "k", k)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	cred, err := m.Credentials(t.Context(), NewGroup(id), "docker.io")
	if err != nil || cred.Username != "me" || cred.Password != "secret" || cred.IdentityToken != "" || k.asked != "registry-1.docker.io" {
		t.Errorf("%+v %v, asked for %s", cred, err, k.asked)
	}
	k.user, k.pw = "", "token"
	cred, err = m.Credentials(t.Context(), NewGroup(id), "example.com:5000")
	if err != nil || cred.Password != "" || cred.IdentityToken != "token" || k.asked != "example.com:5000" {
		t.Errorf("%+v %v, asked for %s", cred, err, k.asked)
	}
}

// TestDeadClient: a machine that lost its network does not close its connections.
func TestDeadClient(t *testing.T) {
	m := NewManager(nil)
	defer m.Close()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = m.HandleConn(context.Background(), ours, map[string][]string{strings.ToLower(headerID): {"dead"}, headerHealth: {"1"}})
	}()
	go func() { // takes everything, says nothing
		for b := make([]byte, 4096); ; {
			if _, err := theirs.Read(b); err != nil {
				return
			}
		}
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("a client that does not answer keeps its session")
	}
}
