package script

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
)

// expectPatience is how long one expectation of a dialogue may take.
const expectPatience = time.Minute

// ptyMain is the program `pty DIALOGUE PROGRAM ARGS…`. The dialogue is a file of lines:
//
//	expect PATTERN   wait until the terminal shows it, beyond what was matched before
//	send "TEXT"      type it; quoted as in Go, so "\r" is Enter and "\x10\x11" are ctrl-P ctrl-Q
//	size ROWS COLS   resize the terminal (also allowed as the first line, before the program starts)
//	code N           the program's exit code, 0 when not given
//
// All that the terminal showed goes to standard output.
func ptyMain() {
	if len(os.Args) < 3 {
		fail("usage: pty DIALOGUE PROGRAM ARGS…")
	}
	lines, err := readLines(os.Args[1])
	if err != nil {
		fail("pty: %v", err)
	}
	rows, cols := uint16(24), uint16(80)
	if len(lines) > 0 && strings.HasPrefix(lines[0], "size ") {
		rows, cols = parseSize(lines[0])
		lines = lines[1:]
	}
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: rows, Cols: cols})
	if err != nil {
		fail("pty: %v", err)
	}
	screen := newScreen(master)
	wantCode := 0
	resized := false // and nothing was seen since
	for _, line := range lines {
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "expect":
			told := tellAgain(cmd.Process, resized)
			err := screen.expect(rest)
			told()
			resized = false
			if err != nil {
				_ = cmd.Process.Kill()
				fail("pty: %v", err)
			}
		case "send":
			text, err := strconv.Unquote(rest)
			if err != nil {
				fail("pty: %s: %v", line, err)
			}
			if _, err := io.WriteString(master, text); err != nil {
				fail("pty: %s: %v", line, err)
			}
		case "size":
			r, c := parseSize(line)
			if err := pty.Setsize(master, &pty.Winsize{Rows: r, Cols: c}); err != nil {
				fail("pty: %s: %v", line, err)
			}
			resized = true
		case "code":
			if wantCode, err = strconv.Atoi(rest); err != nil {
				fail("pty: %s: %v", line, err)
			}
		default:
			fail("pty: %q is no line of a dialogue", line)
		}
	}
	ended := time.AfterFunc(expectPatience, func() {
		_ = cmd.Process.Kill()
		fail("pty: the dialogue is over and the program still runs")
	})
	err = cmd.Wait()
	ended.Stop()
	screen.drain()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fail("pty: %v", err)
	}
	if got := cmd.ProcessState.ExitCode(); got != wantCode {
		fail("pty: exit code %d, want %d", got, wantCode)
	}
}

// tellAgain tells a program every second that its terminal was resized, if it was, until the function that it gives is called. Docker's command line
// reads the size at its start and listens for changes a moment later; one that comes in between it does not notice.
func tellAgain(p *os.Process, resized bool) (enough func()) {
	if !resized {
		return func() {}
	}
	t := time.NewTicker(time.Second)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-t.C:
				_ = p.Signal(syscall.SIGWINCH) // it may have ended
			case <-done:
				return
			}
		}
	}()
	return func() {
		t.Stop()
		close(done)
	}
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func readLines(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines, s.Err()
}

func parseSize(line string) (rows, cols uint16) {
	if _, err := fmt.Sscanf(line, "size %d %d", &rows, &cols); err != nil {
		fail("pty: %s: %v", line, err)
	}
	return rows, cols
}

// A screen gathers what a terminal shows.
type screen struct {
	mu      sync.Mutex
	changed *sync.Cond
	shown   []byte
	matched int // how much of shown expectations have used up
	closed  bool
	done    chan struct{}
}

func newScreen(master io.Reader) *screen {
	s := &screen{done: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	go func() {
		defer close(s.done)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			os.Stdout.Write(buf[:n])
			s.mu.Lock()
			s.shown = append(s.shown, buf[:n]...)
			s.closed = err != nil // EIO once the last program has closed its side
			s.changed.Broadcast()
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) expect(pattern string) error {
	re, err := regexp.Compile("(?s)" + pattern)
	if err != nil {
		return err
	}
	late := false
	timer := time.AfterFunc(expectPatience, func() {
		s.mu.Lock()
		late = true
		s.changed.Broadcast()
		s.mu.Unlock()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if m := re.FindIndex(s.shown[s.matched:]); m != nil {
			s.matched += m[1]
			return nil
		}
		if late || s.closed {
			return fmt.Errorf("expected %q; since the last match the terminal showed %q", pattern, s.shown[s.matched:])
		}
		s.changed.Wait()
	}
}

// drain waits, not for long, for the rest of the output.
func (s *screen) drain() {
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
	}
}
