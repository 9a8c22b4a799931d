package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"berth/test/live"
)

// builder is a client and the engine it builds with.
type builder struct {
	name  string
	build []string // the command up to the flags
	host  string
	pids  func() []int // of the engine's processes, whose waited-for children count too
}

// yard is what the benches of builds share.
type yard struct {
	t     *table
	o     options
	e     *live.Engine
	dir   string
	ours  *builder // berth build
	stock *builder // docker buildx build on Berth; nil: there is no such plugin
	peer  *builder // the same on dockerd; nil: none
}

// The benches of builds count client, engine and steps together.
func benchBuild(t *table, o options) error { return withYard(t, o, (*yard).tenSteps) }

func benchBuildSteps(t *table, o options) error {
	return withYard(t, o, (*yard).stages, (*yard).manySteps, (*yard).metadata)
}

func benchBuildFiles(t *table, o options) error { return withYard(t, o, (*yard).manyFiles) }

func benchBuildLarge(t *table, o options) error { return withYard(t, o, (*yard).large) }

// withYard calls each f with an engine of their own.
func withYard(t *table, o options, each ...func(*yard) error) error {
	return withEngine(o, func(e *live.Engine) (err error) {
		y := &yard{t: t, o: o, e: e}
		if y.dir, err = os.MkdirTemp("/var/tmp", "berth-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(y.dir)
		if err := y.find(); err != nil {
			return err
		}
		for _, f := range each {
			if err := f(y); err != nil {
				return err
			}
		}
		return nil
	})
}

// find finds the clients and the dockerd to build beside.
func (y *yard) find() error {
	berth := filepath.Join(y.o.bin, "berth")
	pids := func() []int { return []int{y.e.PID(), y.e.KeeperPID()} }
	y.ours = &builder{name: "berth build", build: []string{berth, "build"}, host: y.e.Host, pids: pids}
	docker, err := exec.LookPath("docker")
	if err != nil || exec.Command(docker, "buildx", "version").Run() != nil {
		y.t.note("docker's command line with buildx is not installed: left out")
	} else {
		y.stock = &builder{name: "docker buildx build on Berth", build: []string{docker, "buildx", "build"}, host: y.e.Host, pids: pids}
	}
	if y.o.docker == "" {
		y.t.note("no dockerd is running: -docker HOST names one")
		return nil
	}
	if err := importBoxTo(berth, y.o.docker); err != nil {
		y.t.note("the dockerd at " + y.o.docker + " is left out: " + err.Error())
		return nil
	}
	family, err := familyOf(y.o.docker)
	if err != nil {
		y.t.note("the dockerd at " + y.o.docker + " is left out: " + err.Error())
		return nil
	}
	y.peer = &builder{name: "BuildKit in dockerd", build: y.ours.build, host: y.o.docker, pids: family}
	if y.stock != nil {
		y.peer.build = y.stock.build
	}
	return nil
}

// familyOf gives the daemon behind a socket and the daemons that it started, such as its containerd.
func familyOf(host string) (func() []int, error) {
	conn, err := net.Dial("unix", strings.TrimPrefix(host, "unix://"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, cerr); err != nil {
		return nil, err
	}
	pid := int(cred.Pid)
	return func() []int {
		list := []int{pid}
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // empty if it has none
		for _, word := range strings.Fields(string(data)) {
			var child int
			if _, err := fmt.Sscan(word, &child); err == nil {
				list = append(list, child)
			}
		}
		return list
	}, nil
}

// run builds a context and gives what that cost: the client's processor time and the engine's, with all it waited for.
func (y *yard) run(b *builder, context string, flags ...string) (sample, string, error) {
	args := slices.Concat(b.build[1:], flags, []string{context})
	cmd := exec.Command(b.build[0], args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+b.host, "BERTH_HOST="+b.host)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	before, err := sumOf(b.pids())
	if err != nil {
		return sample{}, "", err
	}
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return sample{}, "", fmt.Errorf("%s: %w: %s", b.name, err, out.String())
	}
	wall := time.Since(began)
	after, err := sumOf(b.pids())
	if err != nil {
		return sample{}, "", err
	}
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	client := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	return sample{cpu: client + after - before, wall: wall}, out.String(), nil
}

func sumOf(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		if pid == 0 {
			continue
		}
		d, err := fineTime(pid)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EINVAL) { // EINVAL: it has ended
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// fineTime is processTime whose own part is not counted in ticks: clock_getcpuclockid(3) of another process.
func fineTime(pid int) (time.Duration, error) {
	const sched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &ts); err != nil {
		return 0, err
	}
	all, err := processTime(pid)
	if err != nil {
		return 0, err
	}
	own, err := ownTime(pid)
	return time.Duration(ts.Nano()) + all - own, err
}

// contenders are all that build, the peer last.
func (y *yard) contenders() []*builder {
	var list []*builder
	for _, b := range []*builder{y.ours, y.stock, y.peer} {
		if b != nil {
			list = append(list, b)
		}
	}
	return list
}

// compare prints what each contender took, and ours beside the peer's.
func (y *yard) compare(what string, results map[string]series, budget float64) {
	for _, b := range y.contenders() {
		s := results[b.name]
		y.t.row(what+", "+b.name+", processor time", median(s.cpu()), 0, "ms")
		y.t.row(what+", "+b.name+", wall time", median(s.wall()), 0, "ms")
	}
	if y.peer == nil {
		return
	}
	peer := results[y.peer.name]
	for _, b := range y.contenders() {
		if b == y.peer {
			continue
		}
		// Half of what a stock client's build takes is the client, the same on both sides: the budgets are for Berth's own.
		limit := 0.0
		if b == y.ours {
			limit = budget
		}
		y.t.row(what+", "+b.name+" ÷ "+y.peer.name+", processor time", median(ratios(results[b.name].cpu(), peer.cpu())), limit, "×")
		y.t.row(what+", "+b.name+" ÷ "+y.peer.name+", wall time", median(ratios(results[b.name].wall(), peer.wall())), limit, "×")
	}
}

const tenSteps = `FROM box
ENV LANG=C.UTF-8
RUN mkdir /app && echo %d >/app/round
WORKDIR /app
COPY deps /app/deps
RUN cat deps/* >list
COPY src /app/src
RUN find src -type f | wc -l >count
RUN sha256sum src/d1/* >sums
COPY Dockerfile /app/
RUN rm -rf src/d2
CMD ["sh"]
`

// tenSteps builds a usual Dockerfile for the first time, again, and with one file changed. Each round has files of its own, for each
// contender: nothing is known of them anywhere.
func (y *yard) tenSteps() error {
	y.t.note(fmt.Sprintf("a Dockerfile of ten steps, its context of 2,000 files and 55 MB; %d rounds", rounds(y.o)))
	cold, cached, changed := map[string]series{}, map[string]series{}, map[string]series{}
	for i := range rounds(y.o) + 1 {
		list := y.contenders()
		for k := range list {
			b := list[(i+k)%len(list)]
			dir := filepath.Join(y.dir, fmt.Sprintf("ten-%d-%d", i, k))
			seed := uint64(time.Now().UnixNano()) // a peer's cache outlives a run of this
			if err := writeTree(dir, seed, 40, 50, 28_000); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), fmt.Appendf(nil, tenSteps, seed), 0o644); err != nil {
				return err
			}
			unix.Sync()
			flags := []string{"-q", "-t", "berth-bench-ten"}
			one, _, err := y.run(b, dir, flags...)
			if err != nil {
				return err
			}
			if i == 0 {
				continue // the first of all is slower everywhere
			}
			cold[b.name] = append(cold[b.name], one)
			for range 5 {
				again, _, err := y.run(b, dir, flags...)
				if err != nil {
					return err
				}
				cached[b.name] = append(cached[b.name], again)
			}
			for n := range 3 {
				if err := os.WriteFile(filepath.Join(dir, "src/d3/f7"), fmt.Appendf(nil, "changed %d", n), 0o644); err != nil {
					return err
				}
				again, _, err := y.run(b, dir, flags...)
				if err != nil {
					return err
				}
				changed[b.name] = append(changed[b.name], again)
			}
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	y.compare("cold", cold, 0.4)
	y.compare("nothing changed", cached, 0.25)
	y.compare("one source file changed", changed, 0.3)
	return nil
}

// writeTree writes files of random bytes into src/dN/fM, and a few into deps.
func writeTree(dir string, seed uint64, dirs, each, size int) error {
	r := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, size)
	for d := range dirs {
		sub := filepath.Join(dir, "src", fmt.Sprintf("d%d", d))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		for f := range each {
			for i := 0; i+8 <= size; i += 8 {
				n := r.Uint64()
				for j := range 8 {
					data[i+j] = byte(n >> (8 * j))
				}
			}
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d", f)), data, 0o644); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "deps"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "deps", "list"), fmt.Appendf(nil, "%d\n", seed), 0o644)
}

// dockerfile writes a context of nothing but a Dockerfile.
func (y *yard) dockerfile(name, text string) (string, error) {
	dir := filepath.Join(y.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644)
}

// stages builds four stages that do not need each other, and one alone.
func (y *yard) stages() error {
	text := func(n, nonce int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "FROM box AS s%d\nRUN sleep 2 && echo %d >/out%d\n", i, nonce, i)
		}
		b.WriteString("FROM box\n")
		for i := range n {
			fmt.Fprintf(&b, "COPY --from=s%d /out%d /\n", i, i)
		}
		return b.String()
	}
	var one, four []float64
	for i := range 3 {
		for _, n := range []int{1, 4} {
			dir, err := y.dockerfile("stages", text(n, i*10+n))
			if err != nil {
				return err
			}
			s, _, err := y.run(y.ours, dir, "-q")
			if err != nil {
				return err
			}
			if n == 1 {
				one = append(one, milliseconds(s.wall))
			} else {
				four = append(four, milliseconds(s.wall))
			}
		}
	}
	y.t.row("4 independent stages of 2 s, wall time", median(four), 0, "ms")
	y.t.row("the same ÷ one of them", median(ratios(four, one)), 1.15, "×")
	return nil
}

// manySteps builds a step upon a step until there are 120 layers.
func (y *yard) manySteps() error {
	const steps, part = 120, 20
	var ratio, last []float64
	for round := range 3 {
		var b strings.Builder
		b.WriteString("FROM box\n")
		for i := range steps {
			fmt.Fprintf(&b, "RUN echo %d >/f%d\n", round, i)
		}
		dir, err := y.dockerfile("steps", b.String())
		if err != nil {
			return err
		}
		_, out, err := y.run(y.ours, dir, "--progress", "rawjson")
		if err != nil {
			return err
		}
		ends := endsOf(out)
		if len(ends) < steps {
			return fmt.Errorf("%d of %d steps are told", len(ends), steps)
		}
		ends = ends[len(ends)-steps:]
		var took []float64
		for i := 1; i < len(ends); i++ {
			took = append(took, milliseconds(ends[i].Sub(ends[i-1])))
		}
		first, end := median(took[:part]), median(took[len(took)-part:])
		ratio, last = append(ratio, end/first), append(last, end)
	}
	y.t.row(fmt.Sprintf("%d steps that make layers, each of the last %d", steps, part), median(last), 0, "ms")
	y.t.row("the same ÷ each of the first", median(ratio), 1.5, "×")
	return nil
}

// endsOf gives when the RUN steps in a build's raw progress ended, in order.
func endsOf(raw string) []time.Time {
	ended := map[string]time.Time{}
	for line := range strings.Lines(raw) {
		var s struct {
			Vertexes []struct {
				Digest, Name string
				Completed    *time.Time
			}
		}
		if json.Unmarshal([]byte(line), &s) != nil {
			continue
		}
		for _, v := range s.Vertexes {
			if v.Completed != nil && strings.Contains(v.Name, "] RUN ") {
				ended[v.Digest] = *v.Completed
			}
		}
	}
	var list []time.Time
	for _, t := range ended {
		list = append(list, t)
	}
	slices.SortFunc(list, time.Time.Compare)
	return list
}

// metadata builds Dockerfiles of steps that make no layers, and looks at what the later ones cost more.
func (y *yard) metadata() error {
	took := map[int][]float64{}
	sizes := []int{0, 500, 1000}
	for round := range 40 { // what else goes on, the collector for one, is more than what is measured
		for _, n := range sizes {
			var b strings.Builder
			fmt.Fprintf(&b, "FROM box\nLABEL round=%d\n", round)
			for i := range n {
				switch i % 4 {
				case 0:
					fmt.Fprintf(&b, "LABEL l%d=%d\n", i, i)
				case 1:
					fmt.Fprintf(&b, "ENV e%d=%d\n", i, i)
				case 2:
					fmt.Fprintf(&b, "EXPOSE %d\n", 1000+i)
				default:
					fmt.Fprintf(&b, "CMD [\"echo\", \"%d\"]\n", i)
				}
			}
			dir, err := y.dockerfile("metadata", b.String())
			if err != nil {
				return err
			}
			s, _, err := y.run(y.ours, dir, "-q")
			if err != nil {
				return err
			}
			took[n] = append(took[n], milliseconds(s.cpu))
		}
	}
	for _, n := range sizes {
		y.t.row(fmt.Sprintf("%d steps of metadata, processor time", n), median(took[n]), 0, "ms")
	}
	y.t.row("each of the second half ÷ each of the first", (median(took[1000])-median(took[500]))/(median(took[500])-median(took[0])), 1.5, "×")
	return nil
}

// manyFiles builds again from a large context that has not changed.
func (y *yard) manyFiles() error {
	const dirs, each = 1000, 100
	dir := filepath.Join(y.dir, "files")
	if err := writeTree(dir, 7, dirs, each, 8); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM box\nCOPY . /app\n"), 0o644); err != nil {
		return err
	}
	results := map[string]series{}
	for i := range max(3, rounds(y.o)) + 1 {
		for _, b := range y.contenders() {
			s, _, err := y.run(b, dir, "-q")
			if err != nil {
				return err
			}
			if i > 0 {
				results[b.name] = append(results[b.name], s)
			}
		}
	}
	y.compare(fmt.Sprintf("context of %d files, nothing changed", dirs*each), results, 0.5)
	return os.RemoveAll(dir)
}

// large copies files that do not fit into memory.
func (y *yard) large() error {
	const size, files = 5 << 30, 5
	var fs unix.Statfs_t
	if err := unix.Statfs(y.dir, &fs); err != nil {
		return err
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < 4*size {
		y.t.note(fmt.Sprintf("copying 5 GB is left out: it wants 20 GB of disk, %d are free", free>>30))
		return nil
	}
	dir := filepath.Join(y.dir, "large")
	if err := writeTree(dir, 9, 1, files, size/files); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM box\nCOPY src /src\n"), 0o644); err != nil {
		return err
	}
	if err := forget(y.e.PID()); err != nil {
		return err
	}
	s, _, err := y.run(y.ours, dir, "-q")
	if err != nil {
		return err
	}
	most, err := peak(y.e.PID())
	if err != nil {
		return err
	}
	y.t.row("copy of 5 GB, the engine's memory at its peak", most, 200, "MB")
	y.t.row("the same, wall time", milliseconds(s.wall)/1000, 0, "s")
	return os.RemoveAll(dir)
}
