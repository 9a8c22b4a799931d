// Command enter runs a program on the host of a small world (see package world): in a network namespace of its own with a
// way out by TCP and DNS. Everything else is the machine's. Its exit code is the program's.
//
//	go run ./test/world/enter test/demo/run
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"berth/test/world"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: enter PROGRAM [ARGUMENT...]")
		os.Exit(2)
	}
	code, err := run(os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "enter:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(name string, args []string) (int, error) {
	w, err := world.New()
	if err != nil {
		return 1, err
	}
	defer w.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "BERTH_WORLD=1")
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if err := w.Start(cmd); err != nil {
		return 1, err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may be gone
		}
	}()
	err = cmd.Wait()
	var status *exec.ExitError
	if errors.As(err, &status) {
		return max(1, status.ExitCode()), nil
	}
	return 0, err
}
