package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"berth/base/fault"
	"berth/base/userdirs"
)

// machineSocket is where the machine's engine listens. Its log and our lock stand beside it.
const machineSocket = "/run/berth/berth.sock"

// Socket is where the default engine listens: the machine's for root and for whom it lets in, else, or where one already serves, that
// of the user's own.
func Socket() string {
	own := userdirs.Of(os.Getenv).Socket()
	_, err := os.Stat(own)
	return socketFor(os.Geteuid() == 0, own, err == nil, syscall.Access(machineSocket, mayWrite) == nil)
}

const mayWrite = 2 // W_OK of access(2)

// socketFor decides, given whether the user's own socket is there and the machine's lets him in.
func socketFor(root bool, own string, there, letIn bool) string {
	if root || letIn && !there {
		return machineSocket
	}
	return own
}

// patience is how long a started engine may take until it answers. Recovering thousands of containers
// takes seconds at most.
const patience = 30 * time.Second

// A Starter starts the default engine at most once in its life.
type Starter struct {
	say    io.Writer
	socket string
	find   func() (string, error)

	once sync.Once
	err  error
}

// NewStarter makes a Starter of the default engine; say is told when it starts one.
func NewStarter(say io.Writer) *Starter {
	return &Starter{say: say, socket: Socket(), find: func() (string, error) { return Find("berthd") }}
}

func (s *Starter) logFile() string { return filepath.Join(filepath.Dir(s.socket), "berthd.log") }
func (s *Starter) lockFile() string {
	return filepath.Join(filepath.Dir(s.socket), "berthd.start.lock")
}

// Wanted reports whether a connection that failed with err calls for an engine to be started: nobody
// listens, and the engine there would be ours.
func (s *Starter) Wanted(err error) bool {
	nobody := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
	return nobody && (os.Geteuid() == 0 || s.socket != machineSocket)
}

// Start starts the engine and waits until it serves. Whoever else is starting it is waited for.
func (s *Starter) Start() error {
	s.once.Do(func() { s.err = s.start() })
	return s.err
}

func (s *Starter) start() error {
	binary, err := s.find()
	if err != nil {
		return fault.In(err, "no engine listens on %s and none can be started", s.socket)
	}
	mode := fs.FileMode(0o711)
	if os.Geteuid() != 0 {
		mode = 0o700
	}
	if err := os.MkdirAll(filepath.Dir(s.socket), mode); err != nil {
		return fault.Wrap(fault.Internal, err, "start the engine")
	}
	unlock, err := lock(s.lockFile())
	if err != nil {
		return fault.Wrap(fault.Internal, err, "start the engine")
	}
	defer unlock()
	if serves(s.socket) { // somebody else was faster
		return nil
	}
	ended, where, err := s.launch(binary)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "start %s", binary)
	}
	fmt.Fprintf(s.say, "berth: no engine was listening on %s: started %s (%s)\n", s.socket, binary, where)
	return s.wait(ended, where)
}

// launch runs berthd for good. The channel gives its end, should it come while we look.
func (s *Starter) launch(binary string) (<-chan error, string, error) {
	if s.systemd() {
		if run, err := exec.LookPath("systemd-run"); err == nil {
			return launchUnit(run, binary)
		}
	}
	log, err := os.OpenFile(s.logFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, "", err
	}
	defer log.Close()
	cmd := exec.Command(binary)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log // stdin stays /dev/null
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended, "log: " + s.logFile(), nil
}

// systemd reports whether one serves this user.
func (s *Starter) systemd() bool {
	if os.Geteuid() != 0 {
		dir := os.Getenv("XDG_RUNTIME_DIR")
		_, err := os.Stat(filepath.Join(dir, "systemd/private"))
		return dir != "" && err == nil
	}
	info, err := os.Stat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// launchUnit runs berthd in a transient unit. KillMode=process: stopping the unit must not take the
// keeper and the containers along.
func launchUnit(run, binary string) (<-chan error, string, error) {
	const unit = "berth-engine.service"
	args := []string{"--quiet", "--collect", "--unit=" + unit, "--description=Berth engine, started by berth",
		"--property=KillMode=process", "--property=Delegate=yes", "--property=Restart=on-failure", "--property=RestartSec=1"}
	journal := "journalctl -u " + unit
	if os.Geteuid() == 0 {
		args = append(args, "--property=LimitNOFILE=1048576", "--property=TasksMax=infinity") // not a user's to give
	} else {
		args, journal = append([]string{"--user"}, args...), "journalctl --user -u "+unit
	}
	out, err := exec.Command(run, append(args, binary)...).CombinedOutput()
	if err != nil && strings.Contains(string(out), "already loaded") {
		// An engine that was killed leaves the unit as long as its keeper is in it: that unit is started again.
		words := []string{"start", "--no-ask-password", unit}
		if os.Geteuid() != 0 {
			words = append([]string{"--user"}, words...)
		}
		out, err = exec.Command("systemctl", words...).CombinedOutput()
	}
	if err != nil {
		return nil, "", fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil, journal, nil
}

// wait returns when the engine answers, or with the reason when it does not.
func (s *Starter) wait(ended <-chan error, where string) error {
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if serves(s.socket) { // the other one holds the data root and is alive
				return nil
			}
			return fault.New(fault.Unavailable, "the engine ended before it served (%v); %s%s", reasonOf(err), where, s.lastWords())
		case <-deadline:
			return fault.New(fault.Unavailable, "the engine was started but does not answer after %v; %s", patience, where)
		case <-tick.C:
			if serves(s.socket) {
				return nil
			}
		}
	}
}

func reasonOf(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// lastWords gives the end of the log, where the reason stands.
func (s *Starter) lastWords() string {
	data, err := os.ReadFile(s.logFile())
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	last := lines[max(0, len(lines)-5):]
	return "\n  " + strings.Join(last, "\n  ")
}

// serves reports whether an engine answers on the socket.
func serves(socket string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://berth/_ping", nil)
	if err != nil {
		return false
	}
	resp, err := c.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// lock takes an exclusive lock on a file, waiting for it; the function gives it back. A holder that
// died has given it back.
func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
