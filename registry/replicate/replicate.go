package replicate

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/ref"
	"berth/image/remote"
	"berth/registry/notice"
	"berth/registry/storage"
)

// Config is what replication needs.
type Config struct {
	Dir       string         // its own directory; made when it is missing
	Store     *storage.Store // of the registry
	Rules     []Rule         // of the registry's settings; those of DIR/rules.json come after them
	HostsDirs []string       // see remote.Config
	Proxy     func(*http.Request) (*url.URL, error)
	UserAgent string
	Log       *slog.Logger // nil: slog.Default()
}

const (
	maxTries   = 30               // of a job
	firstPause = 5 * time.Second  // after its first failure; twice as long each time
	lastPause  = time.Hour        // at most
	batch      = 200              // jobs that are read at once
	idle       = 30 * time.Second // between looks for jobs that are due
	maxPending = 10_000           // events that wait for the disk
	jobTimeout = 6 * time.Hour    // for one job; a blob that makes no progress ends much sooner
)

// Replicator is the rules and their workers. All methods may be called at once.
type Replicator struct {
	cfg    Config
	log    *slog.Logger
	queue  *queue
	now    func() time.Time
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	all    sync.WaitGroup
	writer chan struct{} // has room for one: there are pending jobs
	wrote  chan struct{} // closed when the writer has ended

	changing sync.Mutex // puts changes of the rules in a row; held over I/O, taken before mu

	mu      sync.Mutex
	pending []Job // not on disk yet
	fixed   []Rule
	added   []Rule
	workers map[string]*worker
}

// worker does the jobs of one rule.
type worker struct {
	r      *Replicator
	rule   Rule
	client *remote.Client
	stop   context.CancelFunc
	ended  chan struct{}
	awake  chan struct{} // has room for one
	places places
	// compare: an event may have been lost, everything has to be compared.
	compare atomic.Bool

	mu     sync.Mutex
	repos  map[string]*remote.Repository
	status Status
}

// Status is how a rule does since the registry was started.
type Status struct {
	Done      int64     `json:"done"`  // jobs
	Sent      int64     `json:"sent"`  // bytes
	Tries     int64     `json:"tries"` // that failed
	LastDone  time.Time `json:"last_done,omitzero"`
	LastError string    `json:"last_error,omitempty"` // of the last try, when that failed
	Compared  time.Time `json:"compared,omitzero"`    // when everything was compared last
}

// places remembers in which repository of a target a blob lies, for mounts.
type places struct {
	mu sync.Mutex
	in map[digest.Digest]string
}

func (p *places) add(d digest.Digest, repository string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.in == nil || len(p.in) > 50_000 {
		p.in = map[digest.Digest]string{}
	}
	p.in[d] = repository
}

func (p *places) of(d digest.Digest) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.in[d]
}

// Open opens the directory and goes on with the jobs that wait.
func Open(cfg Config) (*Replicator, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open the replication")
	}
	if err := atomicfile.Sweep(cfg.Dir); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open the replication")
	}
	r := &Replicator{cfg: cfg, log: cfg.Log, now: func() time.Time { return time.Now().UTC() }, writer: make(chan struct{}, 1), wrote: make(chan struct{}),
		workers: map[string]*worker{}}
	for _, rule := range cfg.Rules {
		rule, err := rule.check()
		if err != nil {
			return nil, err
		}
		r.fixed = append(r.fixed, rule)
	}
	var err error
	if r.added, err = readRules(r.file()); err != nil {
		return nil, err
	}
	unclean := false
	if r.queue, unclean, err = openQueue(filepath.Join(cfg.Dir, "jobs.db")); err != nil {
		return nil, err
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	go r.write()
	if err := r.use(unclean); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close ends the workers; jobs that are under way are done again after the next Open.
func (r *Replicator) Close() error {
	r.cancel()
	r.all.Wait()
	<-r.wrote
	return r.queue.close()
}

func (r *Replicator) file() string { return filepath.Join(r.cfg.Dir, "rules.json") }

// rulesFile is DIR/rules.json.
type rulesFile struct {
	Version int    `json:"version"`
	Rules   []Rule `json:"rules"`
}

func readRules(file string) ([]Rule, error) {
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var f rulesFile
	if err == nil {
		err = json.Unmarshal(content, &f)
	}
	if err == nil && f.Version != 1 {
		err = fault.New(fault.Invalid, "it has format %d, this program reads 1", f.Version)
	}
	if err != nil {
		return nil, fault.In(err, "read the replication's rules (%s)", file)
	}
	return f.Rules, nil
}

// use starts workers for rules that are new or have changed, and ends those of rules that are gone. The caller holds changing, or
// nobody else has the Replicator yet. compare has the new ones compare everything.
func (r *Replicator) use(compare bool) error {
	want := map[string]Rule{}
	for _, rule := range slices.Concat(r.fixed, r.added) {
		if _, ok := want[rule.Name]; !ok {
			want[rule.Name] = rule
		}
	}
	r.mu.Lock()
	var ends []*worker
	for name, w := range r.workers {
		if rule, ok := want[name]; !ok || !equal(rule, w.rule) {
			ends = append(ends, w)
			delete(r.workers, name)
		}
	}
	r.mu.Unlock()
	for _, w := range ends {
		w.stop()
		<-w.ended
		w.client.Close()
	}
	for name, rule := range want {
		r.mu.Lock()
		running := r.workers[name] != nil
		r.mu.Unlock()
		if running {
			continue
		}
		cfg := remote.Config{HostsDirs: r.cfg.HostsDirs, Proxy: r.cfg.Proxy, UserAgent: r.cfg.UserAgent, Log: r.log}
		if rule.Insecure {
			cfg.Insecure = []string{rule.Registry}
		}
		client, err := remote.New(cfg)
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(r.ctx)
		w := &worker{r: r, rule: rule, client: client, stop: stop, ended: make(chan struct{}), awake: make(chan struct{}, 1), repos: map[string]*remote.Repository{}}
		r.mu.Lock()
		r.workers[name] = w
		r.mu.Unlock()
		w.compare.Store(compare)
		r.all.Go(func() { w.run(ctx) })
	}
	return nil
}

func equal(a, b Rule) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

func (r *Replicator) worker(name string) (*worker, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.workers[name]; w != nil {
		return w, nil
	}
	return nil, fault.New(fault.NotFound, "replication %s is not known", name)
}

// Set adds a rule, or changes one that was added. It is on disk when Set returns. Conflict when the name is one of the settings'.
func (r *Replicator) Set(rule Rule) error {
	rule, err := rule.check()
	if err != nil {
		return err
	}
	return r.change(rule.Name, func(list []Rule) ([]Rule, error) {
		i := slices.IndexFunc(list, func(o Rule) bool { return o.Name == rule.Name })
		if i < 0 {
			return append(list, rule), nil
		}
		if rule.Password == "" && list[i].account().Keeps(rule.account()) {
			rule.Password = list[i].Password
		}
		list[i] = rule
		return list, nil
	})
}

// Remove forgets a rule and its jobs. What was replicated stays where it is.
func (r *Replicator) Remove(name string) error {
	err := r.change(name, func(list []Rule) ([]Rule, error) {
		i := slices.IndexFunc(list, func(o Rule) bool { return o.Name == name })
		if i < 0 {
			return nil, fault.New(fault.NotFound, "replication %s is not known", name)
		}
		return slices.Delete(list, i, i+1), nil
	})
	if err != nil {
		return err
	}
	return r.queue.dropRule(name)
}

func (r *Replicator) change(name string, to func([]Rule) ([]Rule, error)) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	if slices.ContainsFunc(r.fixed, func(o Rule) bool { return o.Name == name }) {
		return fault.New(fault.Conflict, "replication %s is part of the registry's settings: change it there", name)
	}
	list, err := to(slices.Clone(r.added))
	if err != nil {
		return err
	}
	content, err := json.MarshalIndent(rulesFile{Version: 1, Rules: list}, "", "  ")
	if err != nil {
		return fault.Wrap(fault.Internal, err, "")
	}
	if err := atomicfile.Write(r.file(), append(content, '\n'), 0o600); err != nil {
		return fault.Wrap(fault.Internal, err, "write the replication's rules")
	}
	r.added = list
	return r.use(false)
}

// Notify hears what happened and makes the jobs. It never waits for the disk.
func (r *Replicator) Notify(e notice.Event) {
	if !e.Manifest() || e.Action != notice.Push && e.Action != notice.Delete {
		return
	}
	reference := e.Tag
	if reference == "" {
		reference = e.Digest.String()
	}
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, w := range r.workers {
		if !w.rule.covers(e.Repository) || e.Tag != "" && !w.rule.wants(e.Tag) || e.Action == notice.Delete && !w.rule.Deletes {
			continue
		}
		if len(r.pending) >= maxPending {
			w.compare.Store(true)
			continue
		}
		r.pending = append(r.pending, Job{Rule: name, Repository: e.Repository, Reference: reference, Delete: e.Action == notice.Delete, Digest: e.Digest, Added: now, Next: now})
	}
	select {
	case r.writer <- struct{}{}:
	default:
	}
}

// write puts pending jobs on disk, all that there are in one transaction.
func (r *Replicator) write() {
	defer close(r.wrote)
	for {
		ending := false
		select {
		case <-r.ctx.Done():
			ending = true
		case <-r.writer:
		}
		r.mu.Lock()
		jobs := r.pending
		r.pending = nil
		r.mu.Unlock()
		if len(jobs) > 0 {
			failpoint.Hit("registry/replicate-before-queue")
			if err := r.queue.add(jobs...); err != nil {
				r.log.Error("what has to be replicated could not be written down", "jobs", len(jobs), "error", err)
			}
		}
		for _, j := range jobs {
			if w, err := r.worker(j.Rule); err == nil {
				w.wake()
			}
		}
		if ending {
			return
		}
	}
}

// repository gives the client of a repository at the target.
func (w *worker) repository(name ref.Ref) *remote.Repository {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.repos[name.Path]
	if r == nil {
		if len(w.repos) > 500 {
			clear(w.repos)
		}
		r = w.client.Repository(name, w.rule.credentials())
		w.repos[name.Path] = r
	}
	return r
}

func (w *worker) wake() {
	select {
	case w.awake <- struct{}{}:
	default:
	}
}

// run does jobs until the rule or the registry ends.
func (w *worker) run(ctx context.Context) {
	defer close(w.ended)
	tick := time.NewTicker(idle)
	defer tick.Stop()
	compared := time.Now()
	for {
		if !w.rule.Paused {
			every := time.Duration(w.rule.Every)
			if w.compare.Swap(false) || every > 0 && time.Since(compared) >= every {
				compared = time.Now()
				w.compareAll(ctx)
			}
			w.due(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-w.awake:
		case <-tick.C:
		}
	}
}

// compareAll makes jobs for all that differs. When the target does not answer it is tried again at the next look.
func (w *worker) compareAll(ctx context.Context) {
	_, err := w.r.Apply(ctx, w.rule.Name, "")
	if err != nil {
		if ctx.Err() == nil {
			w.r.log.Warn("a replication could not be compared with its target", "replication", w.rule.Name, "error", err)
		}
		w.compare.Store(fault.Is(err, fault.Unavailable))
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Compared = w.r.now()
}

// due does all jobs that are due.
func (w *worker) due(ctx context.Context) {
	for ctx.Err() == nil {
		now := w.r.now()
		jobs, err := w.r.queue.jobs(w.rule.Name, batch, func(j Job) bool { return !j.Failed && !j.Next.After(now) })
		if err != nil {
			w.r.log.Error("the replication's jobs cannot be read", "replication", w.rule.Name, "error", err)
			return
		}
		for _, j := range jobs {
			if ctx.Err() != nil {
				return
			}
			w.one(ctx, j)
		}
		if len(jobs) == 0 {
			return
		}
	}
}

// one does a job and notes how it ended.
func (w *worker) one(ctx context.Context, j Job) {
	limited, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	sent, err := w.do(limited, j)
	if ctx.Err() != nil {
		return // it is done again
	}
	var back *Job
	w.mu.Lock()
	w.status.Sent += sent
	if err == nil {
		w.status.Done++
		w.status.LastDone, w.status.LastError = w.r.now(), ""
	} else {
		w.status.Tries++
		w.status.LastError = err.Error()
		back = again(j, err, w.r.now())
	}
	w.mu.Unlock()
	if err != nil {
		w.r.log.Warn("a replication failed", "replication", w.rule.Name, "repository", j.Repository, "reference", j.Reference, "try", back.Tries, "given_up", back.Failed, "error", err)
	}
	if err := w.r.queue.settle(j, back); err != nil {
		w.r.log.Error("the replication's jobs cannot be written", "replication", w.rule.Name, "error", err)
	}
}

// again says when a job that failed is tried next. What the target will always refuse has failed at once.
func again(j Job, err error, now time.Time) *Job {
	j.Tries++
	j.Error = err.Error()
	pause := firstPause << min(j.Tries-1, 20)
	if pause > lastPause || pause <= 0 {
		pause = lastPause
	}
	j.Next = now.Add(pause + rand.N(pause/10+1))
	j.Failed = j.Tries >= maxTries || fault.Is(err, fault.NotImplemented) || fault.Is(err, fault.Conflict) || fault.Is(err, fault.Invalid) && j.Tries >= 3
	return &j
}
