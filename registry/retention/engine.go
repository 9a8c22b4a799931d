package retention

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/base/id"
	"berth/registry/access"
	"berth/registry/notice"
	"berth/registry/pattern"
	"berth/registry/storage"
)

// Config is what retention needs.
type Config struct {
	Root    string // directory of its own; made when it is missing
	Storage *storage.Store
	Events  func(notice.Event)        // told of each tag and manifest that went; nil: nobody
	Applied func(tags, manifests int) // counts; nil: nobody
	Log     *slog.Logger              // nil: slog.Default()
}

// tell makes the event of something that went.
func (c Config) tell(repository, tag string, d digest.Digest) {
	if c.Events != nil {
		c.Events(notice.Event{ID: id.New(), At: time.Now().UTC(), Action: notice.Delete, Repository: repository, Tag: tag, Digest: d,
			Actor: access.Subject{Name: "retention"}, Request: notice.Request{Method: "DELETE", UserAgent: "retention"}})
	}
}

// Engine keeps the policy, makes plans and applies them. All methods may be called at once; plans are applied one after
// the other.
type Engine struct {
	cfg  Config
	wake chan struct{} // has room for one: the policy has changed
	stop context.CancelFunc
	all  sync.WaitGroup

	applying sync.Mutex // one run at a time; held over I/O, taken before mu

	mu     sync.Mutex
	policy Policy
	runs   []Result // newest first
}

// Bounds of what is kept.
const (
	planAge = 24 * time.Hour // how long a plan can be applied
	maxRuns = 20
)

// Open reads the policy and starts the scheduled runs.
func Open(cfg Config) (*Engine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if err := os.MkdirAll(filepath.Join(cfg.Root, "plans"), 0o700); err != nil {
		return nil, fault.In(err, "open the retention rules")
	}
	for _, dir := range []string{cfg.Root, filepath.Join(cfg.Root, "plans")} {
		if err := atomicfile.Sweep(dir); err != nil {
			return nil, fault.In(err, "open the retention rules")
		}
	}
	e := &Engine{cfg: cfg, wake: make(chan struct{}, 1)}
	if err := readFile(e.file("policy.json"), &e.policy); err != nil {
		return nil, fault.In(err, "open the retention rules")
	}
	if err := readFile(e.file("runs.json"), &e.runs); err != nil {
		cfg.Log.Warn("the history of retention runs cannot be read and begins anew", "error", err)
		e.runs = nil
	}
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.all.Go(func() { e.schedule(ctx) })
	return e, nil
}

// Close ends a running application after its present step.
func (e *Engine) Close() error {
	e.stop()
	e.all.Wait()
	return nil
}

func (e *Engine) file(name string) string { return filepath.Join(e.cfg.Root, name) }

// readFile reads JSON; a file that is not there leaves v as it is.
func readFile(path string, v any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fault.In(json.Unmarshal(data, v), "%s", path)
}

func writeFile(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(data, '\n'), 0o600)
}

// Policy gives the policy.
func (e *Engine) Policy() Policy {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.policy
}

// SetPolicy replaces the policy. It is on disk when SetPolicy returns.
func (e *Engine) SetPolicy(p Policy) error {
	if err := p.Check(); err != nil {
		return err
	}
	e.applying.Lock() // a policy does not change under a scheduled run
	defer e.applying.Unlock()
	if err := writeFile(e.file("policy.json"), p); err != nil {
		return fault.In(err, "write the retention rules")
	}
	e.mu.Lock()
	e.policy = p
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
	return nil
}

// Plan observes the repositories that fit the pattern ("": all) and says what the policy means for them. The plan can be
// applied by its ID for a day.
func (e *Engine) Plan(ctx context.Context, only string) (Plan, error) {
	return e.PlanFor(ctx, e.Policy(), only)
}

// PlanFor is Plan with other rules than those that are set: to see what they would do.
func (e *Engine) PlanFor(ctx context.Context, policy Policy, only string) (Plan, error) {
	if err := policy.Check(); err != nil {
		return Plan{}, err
	}
	if only == "" {
		only = "**"
	}
	if err := pattern.Check([]string{only}); err != nil {
		return Plan{}, err
	}
	names, err := e.cfg.Storage.Repositories(ctx, "")
	if err != nil {
		return Plan{}, fault.In(err, "plan retention")
	}
	var repos []Repository
	for _, n := range names {
		if !pattern.Match(only, n) {
			continue
		}
		r, err := Observe(ctx, e.cfg.Storage, n)
		if err != nil {
			return Plan{}, fault.In(err, "plan retention")
		}
		repos = append(repos, r)
	}
	p := Make(policy, repos, time.Now())
	if err := writeFile(e.file("plans/"+p.ID+".json"), p); err != nil {
		return Plan{}, fault.In(err, "keep the plan")
	}
	return p, nil
}

var planID = regexp.MustCompile(`^[0-9a-f]{16}$`)

// Apply does what a plan says, as far as the world has not changed. The result tells what was done also when an error
// ended it early. NotFound when there is no such plan, or it is too old.
func (e *Engine) Apply(ctx context.Context, planned string) (Result, error) {
	if !planID.MatchString(planned) {
		return Result{}, fault.New(fault.Invalid, "%q is no plan's id", planned)
	}
	e.applying.Lock()
	defer e.applying.Unlock()
	return e.apply(ctx, planned, false)
}

// apply is Apply; the caller holds applying.
func (e *Engine) apply(ctx context.Context, planned string, scheduled bool) (Result, error) {
	var p Plan
	file := e.file("plans/" + planned + ".json")
	if err := readFile(file, &p); err != nil {
		return Result{}, fault.In(err, "read plan %s", planned)
	}
	if p.ID == "" || time.Since(p.Made) > planAge {
		return Result{}, fault.New(fault.NotFound, "plan %s is not known or older than %s; make a new one", planned, planAge)
	}
	result := Result{Plan: planned, At: time.Now().UTC().Truncate(time.Second), Scheduled: scheduled}
	var failed error
	for _, r := range p.Repositories {
		if len(r.Untag)+len(r.Delete) == 0 {
			continue
		}
		if err := e.applyRepo(ctx, r, &result); err != nil {
			failed = fault.In(err, "apply plan %s to %s", planned, r.Name)
			result.Error = failed.Error()
			break
		}
	}
	if failed == nil {
		if err := atomicfile.Remove(file); err != nil { // a plan is applied once
			e.cfg.Log.Warn("an applied plan cannot be removed", "plan", planned, "error", err)
		}
	}
	if e.cfg.Applied != nil {
		e.cfg.Applied(result.Untagged, result.Deleted)
	}
	e.cfg.Log.Info("retention rules were applied", "plan", planned, "untagged", result.Untagged, "deleted", result.Deleted, "skipped", len(result.Skipped))
	return result, errors.Join(failed, e.remember(result))
}

// remember keeps a result among the last ones.
func (e *Engine) remember(r Result) error {
	e.mu.Lock()
	runs := append([]Result{r}, e.runs...)
	e.runs = runs[:min(len(runs), maxRuns)]
	runs = e.runs
	e.mu.Unlock()
	return fault.In(writeFile(e.file("runs.json"), runs), "remember a retention run")
}

// Runs gives the last results, newest first.
func (e *Engine) Runs() []Result {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Result{}, e.runs...)
}

// schedule runs the policy every so often, counted from the last scheduled run.
func (e *Engine) schedule(ctx context.Context) {
	for ctx.Err() == nil {
		wait := time.Duration(math.MaxInt64) // no schedule: the timer never fires
		if every := time.Duration(e.Policy().Every); every > 0 {
			wait = max(time.Until(e.lastScheduled().Add(every)), time.Second)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-e.wake:
		case <-timer.C:
			e.run(ctx)
		}
		timer.Stop()
	}
}

// run is one scheduled run: a plan, and its application.
func (e *Engine) run(ctx context.Context) {
	e.dropOldPlans()
	p, err := e.Plan(ctx, "")
	if err == nil {
		e.applying.Lock()
		_, err = e.apply(ctx, p.ID, true)
		e.applying.Unlock()
	} else {
		e.remember(Result{At: time.Now().UTC(), Scheduled: true, Error: err.Error()})
	}
	if err != nil && ctx.Err() == nil {
		e.cfg.Log.Error("a scheduled retention run failed", "error", err)
	}
}

// lastScheduled is when the last scheduled run was; a registry that has none yet begins one period from now on.
func (e *Engine) lastScheduled() time.Time {
	for _, r := range e.Runs() {
		if r.Scheduled {
			return r.At
		}
	}
	if info, err := os.Stat(e.file("policy.json")); err == nil {
		return info.ModTime()
	}
	return time.Now()
}

// dropOldPlans removes plans that nobody can apply any more.
func (e *Engine) dropOldPlans() {
	files, err := os.ReadDir(e.file("plans"))
	if err != nil {
		return
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil && time.Since(info.ModTime()) > planAge {
			os.Remove(e.file("plans/" + f.Name()))
		}
	}
}
