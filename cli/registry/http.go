package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"berth/base/fault"
)

// prefix is where the registry's own routes begin.
const prefix = "/berth/registry/v1"

// answerMost bounds what is read of an answer, in bytes.
const answerMost = 64 << 20

// call sends a request to a path below prefix and decodes the answer into out, when it is not nil. repository is what the request is
// about, where it is about one: a token is asked for it.
func (s *site) call(ctx context.Context, method, path, repository string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fault.Wrap(fault.Internal, err, "write the request")
		}
	}
	resp, err := s.send(ctx, method, prefix+path, repository, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerMost))
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "read the answer of %s", s.base.Host)
	}
	if out == nil || len(bytes.TrimSpace(text)) == 0 {
		return nil
	}
	return fault.Wrap(fault.Internal, json.Unmarshal(text, out), "understand the answer of %s", s.base.Host)
}

// send sends a request and gives the answer to one that succeeded. It says who we are from the start, because much can be asked by
// everybody and is answered differently.
func (s *site) send(ctx context.Context, method, path, repository string, body []byte) (*http.Response, error) {
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if err := s.authorize(ctx, repository); err != nil {
		return nil, err
	}
	resp, err := s.request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	err = s.refusal(resp)
	// A login leaves a token where the registry gives some, and rights are changed with a password only. Whoever sits at a terminal can
	// say his.
	if !fault.Is(err, fault.Unauthorized) && !fault.Is(err, fault.Forbidden) || s.cred.IdentityToken == "" || s.asked {
		return nil, err
	}
	if !s.d.In().IsTerminal() {
		return nil, fault.In(err, "what the login has left is good for images; for this put NAME:PASSWORD or NAME:TOKEN into "+envAuth)
	}
	s.asked = true
	password, asked := s.ask(ctx, "Password for "+s.cred.Username+" at "+s.base.Host+": ")
	if asked != nil {
		return nil, err
	}
	s.cred.IdentityToken, s.token, s.cred.Password = "", "", password
	return s.send(ctx, method, path, repository, body)
}

func (s *site) request(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.base.String()+path, bytes.NewReader(body))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "ask %s", s.base.Host)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "Berth-Client")
	switch {
	case s.cred.RegistryToken != "":
		req.Header.Set("Authorization", "Bearer "+s.cred.RegistryToken)
	case s.token != "":
		req.Header.Set("Authorization", "Bearer "+s.token)
	case s.cred.IdentityToken == "" && s.cred.Username != "":
		req.SetBasicAuth(s.cred.Username, s.cred.Password)
	}
	resp, err := s.http.Do(req)
	if unknown := (*tls.CertificateVerificationError)(nil); errors.As(err, &unknown) {
		return nil, fault.Wrap(fault.Forbidden, err, "the registry's certificate is not known here: name its CA with --cacert")
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "cannot reach the registry")
	}
	return resp, nil
}

// refusal is the error of an answer, in the registry's words where it has some.
func (s *site) refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var said struct {
		Message string
		Errors  []struct{ Message string }
	}
	_ = json.Unmarshal(text, &said)
	if said.Message == "" && len(said.Errors) > 0 {
		said.Message = said.Errors[0].Message
	}
	if kind := resp.Header.Get("Content-Type"); said.Message == "" && (kind == "" || strings.HasPrefix(kind, "text/plain")) {
		said.Message, _, _ = strings.Cut(strings.TrimSpace(string(text)), "\n")
	}
	kind := fault.Internal
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		kind = fault.Unauthorized
		if s.cred.Username == "" && s.cred.IdentityToken == "" && s.cred.RegistryToken == "" {
			said.Message = "sign in first: berth login " + s.base.Host
		} else if said.Message == "" {
			said.Message = "user or password is wrong: berth login " + s.base.Host
		}
	case http.StatusForbidden:
		kind = fault.Forbidden
	case http.StatusNotFound:
		kind = fault.NotFound
		if said.Message == "" || strings.HasPrefix(said.Message, "404 page") {
			said.Message = "it has no such route: is it a registry of Berth's, of this version?"
		}
	case http.StatusBadRequest:
		kind = fault.Invalid
	case http.StatusConflict:
		kind = fault.Conflict
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusTooManyRequests:
		kind = fault.Unavailable
	case http.StatusNotImplemented:
		kind = fault.NotImplemented
	}
	if said.Message == "" {
		said.Message = resp.Status
	}
	return fault.New(kind, "Error response from %s: %s", s.base.Host, said.Message)
}

// authorize gets a token where a login has left one instead of the password: by the protocol of Docker's token servers.
func (s *site) authorize(ctx context.Context, repository string) error {
	if s.cred.IdentityToken == "" || s.cred.RegistryToken != "" {
		return nil
	}
	scope := "registry:site:admin"
	if repository != "" {
		scope += " repository:" + repository + ":pull,push,delete,admin"
	}
	if s.token != "" && s.scope == scope {
		return nil
	}
	s.token = ""
	resp, err := s.plain(ctx, http.MethodGet, s.base.String()+"/v2/", nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	realm, service, ok := bearerChallenge(resp.Header.Values("WWW-Authenticate"))
	if !ok {
		return fault.New(fault.Unauthorized, "%s does not take the token that the login has left: berth login %s", s.base.Host, s.base.Host)
	}
	if u, err := url.Parse(realm); err != nil || u.Scheme != "https" && !(u.Scheme == "http" && s.base.Scheme == "http") {
		return fault.New(fault.Forbidden, "%s wants the token to be sent to %q, which is not safe", s.base.Host, realm)
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.cred.IdentityToken}, "service": {service}, "client_id": {"berth"}, "scope": {scope}}
	if resp, err = s.plain(ctx, http.MethodPost, realm, form); err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s.refusal(resp)
	}
	var got struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&got); err != nil {
		return fault.Wrap(fault.Internal, err, "understand the token of %s", s.base.Host)
	}
	if s.token = got.AccessToken; s.token == "" {
		s.token = got.Token
	}
	s.scope = scope
	return nil
}

// plain sends a request without credentials.
func (s *site) plain(ctx context.Context, method, to string, form url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "ask %s", to)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "cannot reach the registry")
	}
	return resp, nil
}

// bearerChallenge reads where tokens are had from the headers of a refusal (RFC 6750, RFC 9110 section 11.6.1).
func bearerChallenge(headers []string) (realm, service string, ok bool) {
	for _, h := range headers {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(h), " ")
		if !strings.EqualFold(scheme, "bearer") {
			continue
		}
		for rest != "" {
			name, value, found := strings.Cut(rest, "=")
			if !found {
				break
			}
			value, rest = challengeValue(strings.TrimSpace(value))
			switch strings.ToLower(strings.TrimSpace(strings.TrimLeft(name, ", "))) {
			case "realm":
				realm = value
			case "service":
				service = value
			}
		}
		if realm != "" {
			return realm, service, true
		}
	}
	return "", "", false
}

// challengeValue takes a value, in quotes or not, from the beginning of text.
func challengeValue(text string) (value, rest string) {
	if !strings.HasPrefix(text, `"`) {
		value, rest, _ = strings.Cut(text, ",")
		return strings.TrimSpace(value), rest
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			if i++; i < len(text) {
				b.WriteByte(text[i])
			}
		case '"':
			return b.String(), text[i+1:]
		default:
			b.WriteByte(text[i])
		}
	}
	return b.String(), ""
}

// escape escapes a repository's name for a path, in which its slashes stay.
func escape(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}
