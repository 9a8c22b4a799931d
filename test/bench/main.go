package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"berth/test/live"

	"golang.org/x/sys/unix"
)

// A bench is one group of measurements.
type bench struct {
	name, what string
	run        func(*table, options) error
}

var benches = []bench{
	{"oci", "one container by the runtimes' command lines", benchOCI},
	{"start", "create, start, exit, remove in the engine over one connection", benchStart},
	{"exec", "exec of true over the API", benchExec},
	{"memory", "engine and keeper idle, and for each idle container", benchMemory},
	{"restart", "engine killed and started again over 100 containers", benchRestart},
	{"many", "1,000 containers: ps, start latency, removal", benchMany},
	{"health", "what 1,000 health checks every 30 s cost the engine", benchHealth},
	{"network", "a network beside one made by hand, and a published port beside Docker's proxy", benchNetwork},
	{"logs", "a container that writes lines as fast as it can, by log drivers", benchLogs},
	{"limits", "whether limits of processor time and bandwidth hold", benchLimits},
	{"cli", "run --rm by the command lines", benchCLI},
	{"pull", "an image of 20 layers from a local registry", benchPull},
	{"push", "the same to a local registry", benchPush},
	{"load", "the same from a file", benchLoad},
	{"build", "a Dockerfile of ten steps: cold, cached, changed, beside BuildKit", benchBuild},
	{"build-steps", "stages at once, many steps, many steps of metadata", benchBuildSteps},
	{"build-files", "a context of 100,000 files", benchBuildFiles},
	{"build-large", "a copy of 5 GB", benchBuildLarge},
	{"registry", "one blob to 64 clients at once, beside nginx", benchRegistry},
}

type options struct {
	n      int
	bin    string
	docker string // host of a dockerd to compare with, "" for none
	debian bool   // Debian's docker-registry and not ours
}

func main() {
	var o options
	only := flag.String("only", "", "run the groups whose name matches this `regexp`")
	strict := flag.Bool("strict", false, "exit 1 when a budget is exceeded")
	list := flag.Bool("list", false, "list the groups")
	flag.IntVar(&o.n, "n", 60, "pairs or repetitions of each measurement")
	flag.StringVar(&o.bin, "bin", "bin", "directory of the built programs")
	flag.StringVar(&o.docker, "docker", "", "`host` of a dockerd to measure beside (default: /run/docker.sock where a dockerd listens)")
	flag.BoolVar(&o.debian, "docker-registry", false, "pull from and push to Debian's docker-registry instead of ours")
	floorOf := flag.String("floor", "", "be the floor of pull: fetch and unpack the image HOST/REPOSITORY:TAG, and nothing else")
	floorDir := flag.String("floor-dir", "", "`directory` that -floor unpacks in")
	flag.Parse()
	if *floorOf != "" {
		if err := floor(*floorOf, *floorDir, downloads); err != nil {
			fail(err)
		}
		return
	}
	if *list {
		for _, b := range benches {
			fmt.Printf("%-11s %s\n", b.name, b.what)
		}
		return
	}
	re, err := regexp.Compile("^(" + *only + ")")
	if err != nil {
		fail(err)
	}
	if lacks := live.Lacks(); lacks != "" {
		fail(errors.New(lacks))
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		fail(err)
	}
	if o.docker == "" {
		o.docker = localDocker()
	}
	t := &table{}
	t.heading(machine())
	for _, b := range benches {
		if !re.MatchString(b.name) {
			continue
		}
		t.title(b.name, b.what)
		if err := b.run(t, o); err != nil {
			t.note("FAILED: " + err.Error())
			t.failed = true
		}
	}
	if t.failed || *strict && t.over > 0 {
		os.Exit(1)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(2)
}

// localDocker gives the host of a dockerd at the usual place; not of Berth behind a link there.
func localDocker() string {
	const path = "/run/docker.sock"
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSocket == 0 {
		return ""
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		return ""
	}
	return "unix://" + path
}

// machine describes where this runs, and how busy it is: figures without that say little.
func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // cannot fail with a valid pointer
	load, _ := os.ReadFile("/proc/loadavg")
	average, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("Linux %s, %d processors, load %s, %s", unix.ByteSliceToString(u.Release[:]), runtime.NumCPU(), average, runtime.Version())
}
