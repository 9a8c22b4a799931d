package webhook

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"berth/base/fault"
	"berth/registry/notice"
)

// Config is what the webhooks need.
type Config struct {
	File      string         // bbolt file; made when it is missing
	Source    Source         // who is speaking; an empty InstanceID is filled in
	BaseURL   string         // https://HOST under which the registry is reached, for the events' urls; "": no urls
	Refuse    []netip.Prefix // networks to which nothing is sent, besides link-local and multicast
	UserAgent string
	Log       *slog.Logger // nil: slog.Default()

	Transport http.RoundTripper // nil: a transport that keeps away from Refuse; tests bring their own
}

// Status is how an endpoint does.
type Status struct {
	Pending   int       `json:"pending"`   // events that wait
	Delivered uint64    `json:"delivered"` // since the registry was started
	Failures  int       `json:"failures"`  // in a row, of now
	Dropped   uint64    `json:"dropped"`   // since the registry was started: the queue was full, or nobody listened for too long
	LastError string    `json:"last_error,omitempty"`
	LastTold  time.Time `json:"last_told,omitzero"`
}

// Webhooks are the endpoints and their queues. All methods may be called at once.
type Webhooks struct {
	cfg    Config
	log    *slog.Logger
	db     *bbolt.DB
	client *http.Client

	all  sync.WaitGroup // the writer and the tellers
	wake chan struct{}  // has room for one: the writer looks at pending
	quit chan struct{}  // closed by Close: the writer ends

	changing sync.Mutex // puts changes of endpoints in a row; held over I/O, taken before mu

	mu      sync.Mutex
	pending []Event // not on disk yet
	lost    uint64  // events that found pending full
	closed  bool
	tellers map[string]*teller
}

// maxPending bounds what waits in memory for the disk.
const maxPending = 10_000

// maxAge is how long an event is worth telling.
const maxAge = 72 * time.Hour

// format is the version of the file.
const format = "1"

var (
	bucketMeta      = []byte("meta")
	bucketEndpoints = []byte("endpoints")
	bucketQueues    = []byte("queues")
	keyFormat       = []byte("format")
)

// Open opens the file and starts telling what waits in it.
func Open(cfg Config) (*Webhooks, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Source.InstanceID == "" {
		cfg.Source.InstanceID = rand.Text()
	}
	db, err := bbolt.Open(cfg.File, 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return nil, fault.In(err, "open the webhooks (%s)", cfg.File)
	}
	w := &Webhooks{cfg: cfg, log: cfg.Log, db: db, wake: make(chan struct{}, 1), quit: make(chan struct{}),
		tellers: map[string]*teller{}}
	w.client = &http.Client{
		Transport:     cfg.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if cfg.Transport == nil {
		w.client.Transport = guarded(cfg.Refuse)
	}
	if err := w.load(); err != nil {
		db.Close()
		return nil, fault.In(err, "open the webhooks (%s)", cfg.File)
	}
	w.all.Go(w.write)
	for _, t := range w.tellers {
		w.start(t)
	}
	return w, nil
}

// start has a teller tell, until its stop is called.
func (w *Webhooks) start(t *teller) {
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	w.all.Go(func() { t.run(ctx, w) })
}

// load reads the endpoints.
func (w *Webhooks) load() error {
	return w.db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketMeta, bucketEndpoints, bucketQueues} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if have := meta.Get(keyFormat); have != nil && string(have) != format {
			return fault.New(fault.Invalid, "it has format %s, this program reads %s", have, format)
		}
		if err := meta.Put(keyFormat, []byte(format)); err != nil {
			return err
		}
		return tx.Bucket(bucketEndpoints).ForEach(func(k, v []byte) error {
			var e Endpoint
			if err := json.Unmarshal(v, &e); err != nil {
				return fault.In(err, "read webhook %s", k)
			}
			w.tellers[e.Name] = newTeller(e)
			_, err := tx.Bucket(bucketQueues).CreateBucketIfNotExists(k)
			return err
		})
	})
}

// Close stops telling, puts on disk what is still in memory, and closes the file.
func (w *Webhooks) Close() error {
	w.mu.Lock()
	w.closed = true
	for _, t := range w.tellers {
		t.stop()
	}
	w.mu.Unlock()
	close(w.quit)
	w.all.Wait()
	err := w.flush()
	if e := w.db.Close(); err == nil {
		err = e
	}
	return err
}

// Notify takes an event to be told. It never waits; when the disk does not keep up the event is dropped and counted.
func (w *Webhooks) Notify(n notice.Event) {
	e := translate(n, w.cfg.Source, w.cfg.BaseURL)
	w.mu.Lock()
	defer w.mu.Unlock()
	wanted := false
	for _, t := range w.tellers {
		wanted = wanted || t.endpoint.wants(e)
	}
	if !wanted {
		return
	}
	if len(w.pending) >= maxPending {
		w.lost++
		return
	}
	w.pending = append(w.pending, e)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// write puts pending events into the queues, all that there are in one transaction.
func (w *Webhooks) write() {
	for {
		select {
		case <-w.quit:
			return
		case <-w.wake:
		}
		if err := w.flush(); err != nil {
			w.log.Error("events for webhooks could not be written and are lost", "error", err)
		}
	}
}

// flush does one such transaction.
func (w *Webhooks) flush() error {
	w.mu.Lock()
	events, lost := w.pending, w.lost
	w.pending, w.lost = nil, 0
	queues := map[string]Endpoint{}
	for name, t := range w.tellers {
		queues[name] = t.endpoint
		t.status.Dropped += lost
	}
	w.mu.Unlock()
	if lost > 0 {
		w.log.Warn("the disk does not keep up with the events for webhooks; some are lost", "events", lost)
	}
	if len(events) == 0 {
		return nil
	}
	dropped := map[string]int{}
	err := w.db.Update(func(tx *bbolt.Tx) error {
		for name, e := range queues {
			q := tx.Bucket(bucketQueues).Bucket([]byte(name))
			if q == nil {
				continue // removed meanwhile
			}
			var err error
			if dropped[name], err = enqueue(q, e, events); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fault.In(err, "queue events for webhooks")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, n := range dropped {
		if t := w.tellers[name]; t != nil {
			t.status.Dropped += uint64(n)
			t.wakeUp()
		}
	}
	return nil
}

// enqueue puts the events that the endpoint wants behind the others and takes as many from the front as there
// are too many.
func enqueue(q *bbolt.Bucket, e Endpoint, events []Event) (dropped int, err error) {
	added := false
	for _, v := range events {
		if !e.wants(v) {
			continue
		}
		data, err := json.Marshal(v)
		if err != nil {
			return 0, err
		}
		n, err := q.NextSequence()
		if err != nil {
			return 0, err
		}
		if err := q.Put(binary.BigEndian.AppendUint64(nil, n), data); err != nil {
			return 0, err
		}
		added = true
	}
	if !added {
		return 0, nil
	}
	first, _ := q.Cursor().First()
	for n := binary.BigEndian.Uint64(first); q.Sequence()-n >= uint64(e.QueueLimit); n++ {
		key := binary.BigEndian.AppendUint64(nil, n)
		if q.Get(key) == nil {
			continue
		}
		if err := q.Delete(key); err != nil {
			return 0, err
		}
		dropped++
	}
	return dropped, nil
}

// Set adds an endpoint or replaces the one of its name; what waits for it stays.
func (w *Webhooks) Set(e Endpoint) error {
	if err := e.check(); err != nil {
		return err
	}
	w.changing.Lock()
	defer w.changing.Unlock()
	data, err := json.Marshal(e)
	if err != nil {
		return fault.In(err, "set webhook %s", e.Name)
	}
	err = w.db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.Bucket(bucketQueues).CreateBucketIfNotExists([]byte(e.Name)); err != nil {
			return err
		}
		return tx.Bucket(bucketEndpoints).Put([]byte(e.Name), data)
	})
	if err != nil {
		return fault.In(err, "set webhook %s", e.Name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.tellers[e.Name]; t != nil {
		t.endpoint = e.withDefaults()
		t.status.Failures, t.status.LastError = 0, ""
		t.wakeUp()
		return nil
	}
	t := newTeller(e)
	if w.closed {
		return fault.New(fault.Unavailable, "the registry is shutting down")
	}
	w.tellers[e.Name] = t
	w.start(t)
	return nil
}

// Remove forgets an endpoint and what waits for it. NotFound when there is none of the name.
func (w *Webhooks) Remove(name string) error {
	w.changing.Lock()
	defer w.changing.Unlock()
	w.mu.Lock()
	t := w.tellers[name]
	delete(w.tellers, name)
	w.mu.Unlock()
	if t == nil {
		return fault.New(fault.NotFound, "webhook %s is not known", name)
	}
	t.stop()
	<-t.done
	err := w.db.Update(func(tx *bbolt.Tx) error {
		if err := tx.Bucket(bucketEndpoints).Delete([]byte(name)); err != nil {
			return err
		}
		return tx.Bucket(bucketQueues).DeleteBucket([]byte(name))
	})
	return fault.In(err, "remove webhook %s", name)
}

// Listed is an endpoint as it is shown: without its secrets, with how it does.
type Listed struct {
	Endpoint
	Status Status `json:"status"`
}

// List gives all endpoints by name.
func (w *Webhooks) List() ([]Listed, error) {
	pending := map[string]int{}
	err := w.db.View(func(tx *bbolt.Tx) error {
		queues := tx.Bucket(bucketQueues)
		return queues.ForEachBucket(func(name []byte) error {
			pending[string(name)] = depth(queues.Bucket(name))
			return nil
		})
	})
	if err != nil {
		return nil, fault.In(err, "list webhooks")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	list := []Listed{}
	for _, t := range w.tellers {
		status := t.status
		status.Pending = pending[t.endpoint.Name]
		list = append(list, Listed{t.endpoint.shown(), status})
	}
	slices.SortFunc(list, func(a, b Listed) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// depth counts a queue. Numbers are given without gaps and events leave from the front only, so that the first and
// the last tell how many there are.
func depth(q *bbolt.Bucket) int {
	first, _ := q.Cursor().First()
	if first == nil {
		return 0
	}
	return int(q.Sequence() - binary.BigEndian.Uint64(first) + 1)
}
