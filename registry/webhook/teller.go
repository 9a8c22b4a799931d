package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"berth/base/fault"
)

// A teller tells one endpoint what is in its queue. endpoint and status belong to Webhooks.mu.
type teller struct {
	endpoint Endpoint // with defaults
	status   Status

	wake chan struct{} // has room for one
	stop context.CancelFunc
	done chan struct{} // closed when run has returned
}

func newTeller(e Endpoint) *teller {
	return &teller{endpoint: e.withDefaults(), wake: make(chan struct{}, 1), done: make(chan struct{})}
}

func (t *teller) wakeUp() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run tells until ctx ends.
func (t *teller) run(ctx context.Context, w *Webhooks) {
	defer close(t.done)
	for ctx.Err() == nil {
		again, wait := t.round(ctx, w)
		switch {
		case again && wait == 0:
		case wait > 0: // left alone: new events do not shorten it
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
		default:
			select {
			case <-ctx.Done():
			case <-t.wake:
			}
		}
	}
}

// batch is how many events are told before they are removed from the disk, in one transaction.
const batch = 64

// waiting is an event with its place in the queue.
type waiting struct {
	key   []byte
	event Event
}

// round tells the first events of the queue until one fails. again: there may be more. wait: the endpoint is
// to be left alone for so long.
func (t *teller) round(ctx context.Context, w *Webhooks) (again bool, wait time.Duration) {
	w.mu.Lock()
	e := t.endpoint
	w.mu.Unlock()
	if e.Disabled {
		return false, 0
	}
	first, err := w.peek(e.Name)
	if err != nil {
		w.log.Error("the queue of a webhook cannot be read", "webhook", e.Name, "error", err)
		return false, time.Minute
	}
	var told, dropped int
	for _, v := range first {
		if time.Since(v.event.Timestamp) > maxAge {
			dropped++
			continue
		}
		if _, err = w.tell(ctx, e, v.event); err != nil {
			break
		}
		told++
	}
	if n := told + dropped; n > 0 {
		if e := w.drop(e.Name, first[:n]); e != nil {
			w.log.Error("told events cannot be removed from a webhook's queue and will be told again", "webhook", t.endpoint.Name, "error", e)
			return false, time.Minute
		}
	}
	if ctx.Err() != nil {
		return false, 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &t.status
	s.Delivered += uint64(told)
	s.Dropped += uint64(dropped)
	if told > 0 {
		s.Failures, s.LastTold = 0, time.Now().UTC()
	}
	if err == nil {
		s.LastError = ""
		return len(first) == batch, 0
	}
	s.Failures++
	s.LastError = err.Error()
	if s.Failures == e.Threshold {
		w.log.Warn("a webhook fails and is left alone for a while", "webhook", e.Name, "error", err)
	}
	return true, pause(e, s.Failures)
}

// pause is how long an endpoint is left alone after so many failures in a row.
func pause(e Endpoint, failures int) time.Duration {
	over := failures - e.Threshold
	if over < 0 {
		return 0
	}
	backoff := time.Duration(e.Backoff)
	longest := max(backoff, time.Minute)
	for range min(over, 20) {
		if backoff *= 2; backoff >= longest {
			return longest
		}
	}
	return backoff
}

// peek gives the first events of a queue.
func (w *Webhooks) peek(name string) ([]waiting, error) {
	var first []waiting
	err := w.db.View(func(tx *bbolt.Tx) error {
		q := tx.Bucket(bucketQueues).Bucket([]byte(name))
		if q == nil {
			return nil
		}
		c := q.Cursor()
		for k, v := c.First(); k != nil && len(first) < batch; k, v = c.Next() {
			var e Event
			if err := json.Unmarshal(v, &e); err != nil {
				return err
			}
			first = append(first, waiting{bytes.Clone(k), e})
		}
		return nil
	})
	return first, err
}

// drop removes told events.
func (w *Webhooks) drop(name string, told []waiting) error {
	return w.db.Update(func(tx *bbolt.Tx) error {
		q := tx.Bucket(bucketQueues).Bucket([]byte(name))
		if q == nil {
			return nil
		}
		for _, v := range told {
			if err := q.Delete(v.key); err != nil {
				return err
			}
		}
		return nil
	})
}

// tell sends one event and gives the answer's status. Anything but 2xx is an error.
func (w *Webhooks) tell(ctx context.Context, e Endpoint, v Event) (int, error) {
	body, err := json.Marshal(Envelope{Events: []Event{v}})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(e.Timeout))
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	for k, values := range e.Headers {
		r.Header[http.CanonicalHeaderKey(k)] = values
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	r.Header.Set("Content-Type", MediaType)
	if w.cfg.UserAgent != "" {
		r.Header.Set("User-Agent", w.cfg.UserAgent)
	}
	if e.Secret != "" {
		r.Header.Set("X-Berth-Signature", sign(e.Secret, body))
	}
	answer, err := w.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection can be used again
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return answer.StatusCode, fmt.Errorf("%s answers %d %s", e.URL, answer.StatusCode, http.StatusText(answer.StatusCode))
	}
	return answer.StatusCode, nil
}

// sign gives the signature of a body.
func sign(secret string, body []byte) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write(body)
	return "sha256=" + hex.EncodeToString(m.Sum(nil))
}

// Test sends one event with action ping now, past the queue, and gives the answer's status.
func (w *Webhooks) Test(ctx context.Context, name string) (int, error) {
	w.mu.Lock()
	t := w.tellers[name]
	var e Endpoint
	if t != nil {
		e = t.endpoint
	}
	w.mu.Unlock()
	if t == nil {
		return 0, fault.New(fault.NotFound, "webhook %s is not known", name)
	}
	status, err := w.tell(ctx, e, Event{ID: rand.Text(), Timestamp: time.Now().UTC(), Action: "ping", Source: w.cfg.Source})
	return status, fault.Wrap(fault.Unavailable, err, "test webhook %s", name)
}

// guarded makes a transport that does not connect to where no listener can rightly be. The address is looked at
// after the name was resolved, for each connection: a name that changes its address does not get around it.
func guarded(refuse []netip.Prefix) *http.Transport {
	d := &net.Dialer{Timeout: 10 * time.Second, Control: func(network, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		ip := to.Addr().Unmap().WithZone("")
		if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
			return fmt.Errorf("%s is refused: webhooks are not sent to link-local and multicast addresses", ip)
		}
		for _, p := range refuse {
			if p.Contains(ip) {
				return fmt.Errorf("%s is refused: webhooks are not sent to %s", ip, p)
			}
		}
		return nil
	}}
	return &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: d.DialContext, MaxIdleConns: 20,
		IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute}
}
