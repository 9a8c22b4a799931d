package server

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"berth/base/failpoint"

	"golang.org/x/sys/unix"
)

// options is the command line.
type options struct {
	execRoot    string
	cgroupProcs []string
	oomScoreAdj int
	readyFD     int
	stateFD     int
	check       bool
	help        bool
	version     bool
}

const usage = `usage: berth-keeper --exec-root DIR [--cgroup-procs FILE]... [--oom-score-adj N]

The parent of all containers. berthd starts it; there is no need to do so by hand.
`

// Main is the keeper's whole life: it reads the command line, serves until Shutdown, and gives the
// exit status. It must run on the process's main thread (see Run); starter is called once.
func Main(argv []string, version string, starter func() (Starter, error)) int {
	o, err := parse(argv[1:])
	switch {
	case err != nil:
		os.Stderr.WriteString("berth-keeper: " + err.Error() + "\n" + usage)
		return 2
	case o.help:
		os.Stdout.WriteString(usage)
		return 0
	case o.version:
		os.Stdout.WriteString("berth-keeper " + version + "\n")
		return 0
	case o.check:
		if err := CheckState(3); err != nil {
			os.Stderr.WriteString("berth-keeper: " + err.Error() + "\n")
			return 1
		}
		return 0
	}
	// The heap is a few hundred KB: collect at one megabyte instead of four, and sample nothing.
	debug.SetGCPercent(25)
	runtime.MemProfileRate = 0
	if err := failpoint.Arm(os.Getenv(failpoint.Env)); err != nil {
		os.Stderr.WriteString("berth-keeper: " + err.Error() + "\n")
		return 2
	}
	if err := o.serve(argv[0], version, starter); err != nil {
		word := "failed: "
		if errors.Is(err, ErrLocked) {
			word = "locked: "
		}
		o.ready(word + err.Error())
		os.Stderr.WriteString("berth-keeper: " + err.Error() + "\n")
		return 1
	}
	return 0
}

func (o *options) serve(argv0, version string, newStarter func() (Starter, error)) error {
	unix.Umask(0) // modes of device nodes are the program's to choose
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	cfg := Config{ExecRoot: o.execRoot, Version: version, Args: append([]string{argv0}, o.again()...), DiaryFD: 2}
	if o.stateFD < 0 {
		if err := o.settleIn(&cfg); err != nil {
			return err
		}
	}
	var err error
	if cfg.Starter, err = newStarter(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 16)
	cfg.Signals = func() {
		signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	}
	cfg.Signals()
	var s *Server
	if o.stateFD >= 0 {
		s, err = Resume(cfg, o.stateFD)
	} else {
		s, err = Open(cfg)
	}
	if err != nil {
		return err
	}
	go func() {
		for sig := range signals {
			s.Signal(sig.(syscall.Signal))
		}
	}()
	o.ready("ready")
	return s.Run()
}

// settleIn takes the keeper's place among processes: an upgrade in place keeps it.
func (o *options) settleIn(cfg *Config) error {
	for _, f := range o.cgroupProcs {
		if err := os.WriteFile(f, []byte("0"), 0); err != nil {
			return err
		}
	}
	// Lowering it needs CAP_SYS_RESOURCE: without it the keeper is merely easier prey.
	if o.oomScoreAdj != 0 {
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(o.oomScoreAdj)), 0); err != nil {
			cfg.OOMError = err.Error()
		}
	}
	return nil
}

// again is the command line for an upgrade in place.
func (o *options) again() []string {
	args := []string{"--exec-root=" + o.execRoot}
	for _, f := range o.cgroupProcs {
		args = append(args, "--cgroup-procs="+f)
	}
	if o.oomScoreAdj != 0 {
		args = append(args, "--oom-score-adj="+strconv.Itoa(o.oomScoreAdj))
	}
	return args
}

// ready tells who started the keeper how that went.
func (o *options) ready(word string) {
	if o.readyFD < 0 {
		return
	}
	_, _ = unix.Write(o.readyFD, []byte(word+"\n"))
	_ = unix.Close(o.readyFD)
	o.readyFD = -1
}

func parse(args []string) (*options, error) {
	o := &options{readyFD: -1, stateFD: -1}
	for len(args) > 0 {
		name, value, joined := strings.Cut(args[0], "=")
		args = args[1:]
		switch name {
		case CheckFlag:
			o.check = true
			continue
		case "--version":
			o.version = true
			continue
		case "--help", "-h":
			o.help = true
			continue
		}
		if !joined {
			if len(args) == 0 {
				return nil, errors.New("flag " + name + " needs a value")
			}
			value, args = args[0], args[1:]
		}
		var err error
		switch name {
		case "--exec-root":
			o.execRoot = value
		case "--cgroup-procs":
			o.cgroupProcs = append(o.cgroupProcs, value)
		case "--oom-score-adj":
			o.oomScoreAdj, err = strconv.Atoi(value)
		case "--ready-fd":
			o.readyFD, err = strconv.Atoi(value)
		case StateFlag:
			o.stateFD, err = strconv.Atoi(value)
		default:
			err = errors.New("unknown flag " + name)
		}
		if err != nil {
			return nil, err
		}
	}
	if !o.check && !o.help && !o.version && !strings.HasPrefix(o.execRoot, "/") {
		return nil, errors.New("--exec-root needs an absolute directory")
	}
	return o, nil
}
