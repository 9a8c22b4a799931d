package bundle

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Ask gets one page of the engine's API, by its path. More than PageMax bytes need not be given.
type Ask func(ctx context.Context, path string) ([]byte, error)

// Options say what to gather.
type Options struct {
	Ask   Ask
	Local bool // the engine is on this machine: its log, configuration and mounts are looked at too
	Now   time.Time
	Tell  func(file string) // hears of each file; nil: nobody
}

// PageMax bounds the bytes of one file of a bundle.
const PageMax = 16 << 20

const (
	pageTime   = 20 * time.Second // for one page or program
	containers = 200              // looked at one by one
)

// pages are what the API is asked for, by file name.
var pages = []struct{ file, path string }{
	{"version.json", "/version"},
	{"info.json", "/info"},
	{"containers.json", "/containers/json?all=1&size=0"},
	{"images.json", "/images/json"},
	{"networks.json", "/networks"},
	{"volumes.json", "/volumes"},
	{"plugins.json", "/plugins"},
	{"disk.json", "/system/df"},
	{"events.jsonl", "/events?since=%d&until=%d"},
	{"berth/kernel.json", "/berth/v1/kernel"},
	{"berth/network-rules.json", "/berth/v1/network/rules"},
	{"berth/port-audit.json", "/berth/v1/port/audit"},
	{"berth/waits.json", "/berth/v1/waits"},
	{"berth/settings-not-in-force.json", "/berth/v1/reload"},
	{"debug/goroutines.txt", "/debug/pprof/goroutine?debug=2"},
}

// programs are run on the engine's machine.
var programs = []struct {
	file string
	argv []string
}{
	{"machine/uname.txt", []string{"uname", "-a"}},
	{"machine/engine.log", []string{"journalctl", "--no-pager", "-o", "short-precise", "-n", "5000", "-u", "berth.service", "-u", "berth-keeper.service"}},
	{"machine/units.txt", []string{"systemctl", "--no-pager", "--full", "status", "berth.service", "berth.socket", "berth-keeper.service", "berth-containers.service"}},
	{"machine/disks.txt", []string{"df", "-hTl"}}, // a server that does not answer would hold it
}

// files are read on the engine's machine.
var files = []struct{ file, path string }{
	{"machine/daemon.json", "/etc/berth/daemon.json"},
	{"machine/os-release", "/etc/os-release"},
	{"machine/mountinfo", "/proc/self/mountinfo"},
	{"machine/meminfo", "/proc/meminfo"},
	{"machine/pressure-memory", "/proc/pressure/memory"},
	{"machine/pressure-io", "/proc/pressure/io"},
	{"machine/cmdline", "/proc/cmdline"},
}

// Write gathers everything into a compressed tar. What cannot be had is named in problems.txt of the archive: a sick engine is what
// bundles are made for. The error is that of writing alone.
func Write(ctx context.Context, w io.Writer, o Options) error {
	zip := gzip.NewWriter(w)
	b := &builder{Options: o, tar: tar.NewWriter(zip)}
	b.gather(ctx)
	b.add("README.txt", []byte(readme))
	b.add("problems.txt", []byte(strings.Join(b.problems, "\n")+"\n"))
	if b.err == nil {
		b.err = b.tar.Close()
	}
	if err := zip.Close(); b.err == nil {
		b.err = err
	}
	return b.err
}

const readme = `What a Berth engine tells of itself, gathered by "berth system support-bundle".

Taken out: values of environment variables, passwords in URLs and command lines, tokens, private keys.
Never in it: what containers wrote, the content of images and volumes.
Look through it before you send it: a secret in an unusual place is not found by a program.
`

type builder struct {
	Options
	tar      *tar.Writer
	problems []string
	err      error // of writing
}

func (b *builder) gather(ctx context.Context) {
	for _, p := range pages {
		path := p.path
		if strings.Contains(path, "%d") {
			path = fmt.Sprintf(path, b.Now.Add(-24*time.Hour).Unix(), b.Now.Unix())
		}
		b.page(ctx, p.file, path)
	}
	for _, id := range b.ids(ctx) {
		b.page(ctx, "containers/"+id[:12]+"/inspect.json", "/containers/"+id+"/json")
		b.page(ctx, "containers/"+id[:12]+"/explain.json", "/berth/v1/containers/"+url.PathEscape(id)+"/explain")
		b.page(ctx, "containers/"+id[:12]+"/stats.json", "/containers/"+id+"/stats?stream=false&one-shot=true")
	}
	if !b.Local {
		return
	}
	for _, p := range programs {
		b.program(ctx, p.file, p.argv)
	}
	for _, f := range files {
		text, err := readSome(f.path)
		b.put(f.file, text, err)
	}
}

// ids lists containers, the newest first, as many as are worth a look.
func (b *builder) ids(ctx context.Context) (ids []string) {
	ctx, cancel := context.WithTimeout(ctx, pageTime)
	defer cancel()
	text, err := b.Ask(ctx, fmt.Sprintf("/containers/json?all=1&limit=%d", containers))
	var all []struct {
		ID string `json:"Id"`
	}
	if err != nil || json.Unmarshal(text, &all) != nil {
		return nil // the page of containers has said so
	}
	for _, c := range all {
		if len(c.ID) >= 12 && strings.Trim(c.ID, "0123456789abcdef") == "" { // it becomes part of a file's name
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func (b *builder) page(ctx context.Context, file, path string) {
	ctx, cancel := context.WithTimeout(ctx, pageTime)
	defer cancel()
	text, err := b.Ask(ctx, path)
	b.put(file, text, err)
}

func (b *builder) program(ctx context.Context, file string, argv []string) {
	if _, err := exec.LookPath(argv[0]); err != nil {
		b.problems = append(b.problems, file+": "+err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(ctx, pageTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second // what it started may hold its output
	text, err := cmd.CombinedOutput()
	if len(text) > 0 {
		err = nil // status tells a stopped unit by its exit code
	}
	b.put(file, text, err)
}

func readSome(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, PageMax))
}

// put redacts and adds one file, or notes why it is missing.
func (b *builder) put(file string, text []byte, err error) {
	if err != nil {
		b.problems = append(b.problems, file+": "+err.Error())
		return
	}
	if len(text) > PageMax && strings.HasSuffix(file, ".json") { // half of a JSON text is none: its secrets could not be told by their place
		b.problems = append(b.problems, fmt.Sprintf("%s: left out, it is larger than %d bytes", file, PageMax))
		return
	}
	if len(text) > PageMax {
		b.problems = append(b.problems, fmt.Sprintf("%s: cut to %d bytes", file, PageMax))
		text = text[:PageMax]
	}
	switch {
	case strings.HasSuffix(file, ".jsonl"):
		var all []byte
		for line := range strings.Lines(string(text)) {
			all = append(all, compact(Redact([]byte(line)))...)
		}
		text = all
	case strings.HasSuffix(file, ".json"):
		text = Redact(text)
	default:
		text = []byte(RedactText(string(text)))
	}
	b.add(file, text)
}

// compact puts a JSON text on one line again.
func compact(text []byte) []byte {
	var v json.RawMessage
	if json.Unmarshal(text, &v) != nil {
		return text
	}
	out, err := json.Marshal(v)
	if err != nil {
		return text
	}
	return append(out, '\n')
}

func (b *builder) add(file string, text []byte) {
	if b.err != nil {
		return
	}
	if b.Tell != nil {
		b.Tell(file)
	}
	if b.err = b.tar.WriteHeader(&tar.Header{Name: "berth-support/" + file, Mode: 0o600, Size: int64(len(text)), ModTime: b.Now.Truncate(time.Second)}); b.err == nil {
		_, b.err = b.tar.Write(text)
	}
}
