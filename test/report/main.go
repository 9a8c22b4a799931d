package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is main with its world as arguments; it gives the exit code.
func run(args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	flags.SetOutput(errs)
	keep := flags.String("json", "", "keep the raw events in this `file`")
	read := flags.String("read", "", "report on the events in this `file` instead of running tests")
	slow := flags.Duration("slow", 10*time.Second, "name tests that took longer than this")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	r := newReport(out, *slow)
	if *read != "" {
		f, err := os.Open(*read)
		if err != nil {
			fmt.Fprintln(errs, "report:", err)
			return 2
		}
		defer f.Close()
		if err := r.read(f); err != nil {
			fmt.Fprintln(errs, "report:", err)
			return 2
		}
		return r.finish()
	}
	code, err := r.test(flags.Args(), *keep, errs)
	if err != nil {
		fmt.Fprintln(errs, "report:", err)
		return 2
	}
	if ended := r.finish(); ended != 0 {
		return ended
	}
	return code // go test failed though no event says so: a flag it does not know, for example
}

// test runs go test and feeds its events to the report; it gives go test's exit code.
func (r *report) test(args []string, keep string, errs io.Writer) (int, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = errs
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	var events io.Reader = pipe
	if keep != "" {
		f, err := os.Create(keep)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		events = io.TeeReader(pipe, f)
	}
	// An interrupt from the terminal reaches the tests by themselves: they clean up and we still report.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	// A caller that ignores hang-ups (nohup) would have every program below ignore them, those that tests send too. Caught here,
	// they start in the tests as they are by default, and go no further.
	if signal.Ignored(syscall.SIGHUP) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range interrupts {
			_ = cmd.Process.Signal(s) // it may have ended meanwhile
		}
	}()
	readErr := r.read(events)
	waitErr := cmd.Wait()
	close(interrupts)
	if readErr != nil {
		return 0, readErr
	}
	var exit *exec.ExitError
	if errors.As(waitErr, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, waitErr
}

// read takes events to the end of the stream. Lines that are no event are passed on as they are.
func (r *report) read(events io.Reader) error {
	lines := bufio.NewReaderSize(events, 1<<16)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
