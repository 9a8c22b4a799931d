package remote

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// A registry that got its first user after it was asked is searched as whoever has logged in since.
func TestLoginLearnsAnew(t *testing.T) {
	var guarded atomic.Bool
	var asked atomic.Value
	var at string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/token":
			fmt.Fprint(w, `{"access_token":"access","token":"access","refresh_token":"refresh"}`)
		case "/v1/search":
			asked.Store(r.Header.Get("Authorization"))
			fmt.Fprint(w, `{"results":[]}`)
		default:
			if guarded.Load() && r.Header.Get("Authorization") == "" {
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+at+`/token",service="r"`)
				w.WriteHeader(http.StatusUnauthorized)
			}
		}
	}))
	defer server.Close()
	at = server.URL
	host := server.Listener.Addr().String()
	c := newClient(t, Config{})
	if _, err := c.Search(t.Context(), host+"/x", 0, Credentials{}); err != nil {
		t.Fatal(err)
	}
	guarded.Store(true)
	_, token, err := c.Login(t.Context(), Credentials{Username: "ann", Password: "secret", ServerAddress: host})
	if err != nil || token != "refresh" {
		t.Fatalf("%q, %v", token, err)
	}
	if _, err := c.Search(t.Context(), host+"/x", 0, Credentials{Username: "ann", IdentityToken: token, ServerAddress: host}); err != nil {
		t.Fatal(err)
	}
	if asked.Load() != "Bearer access" {
		t.Errorf("the search says %q", asked.Load())
	}
}
