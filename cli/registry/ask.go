package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/moby/term"

	"berth/base/fault"
)

// newPassword reads a new password: from standard input, or twice from the terminal.
func (s *site) newPassword(ctx context.Context, name string, stdin bool) (string, error) {
	if stdin || !s.d.In().IsTerminal() {
		b, err := io.ReadAll(io.LimitReader(s.d.In(), 4096))
		if err != nil {
			return "", fault.Wrap(fault.Invalid, err, "read the password")
		}
		password := strings.TrimRight(string(b), "\r\n")
		if password == "" {
			return "", fault.New(fault.Invalid, "there is no password on standard input")
		}
		return password, nil
	}
	password, err := s.ask(ctx, "Password for "+name+": ")
	if err != nil {
		return "", err
	}
	again, err := s.ask(ctx, "Again: ")
	switch {
	case err != nil:
		return "", err
	case password != again:
		return "", fault.New(fault.Invalid, "that is not the same password")
	case password == "":
		return "", fault.New(fault.Invalid, "the password is empty")
	}
	return password, nil
}

// ask reads a line from the terminal without showing it.
func (s *site) ask(ctx context.Context, prompt string) (string, error) {
	if !s.d.In().IsTerminal() {
		return "", fault.New(fault.Invalid, "there is no terminal to ask on")
	}
	fmt.Fprint(s.d.Err(), prompt)
	fd := s.d.In().FD()
	before, err := term.SaveState(fd)
	if err == nil {
		err = term.DisableEcho(fd, before)
	}
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "hide what is typed")
	}
	restore := context.AfterFunc(ctx, func() { _ = term.RestoreTerminal(fd, before) })
	defer func() {
		restore()
		_ = term.RestoreTerminal(fd, before)
		fmt.Fprintln(s.d.Err())
	}()
	line, one := []byte{}, make([]byte, 1)
	for {
		n, err := s.d.In().Read(one)
		if n == 1 && one[0] == '\n' || err != nil && len(line) > 0 {
			return strings.TrimRight(string(line), "\r"), ctx.Err()
		}
		if err != nil {
			return "", fault.Wrap(fault.Invalid, err, "read from the terminal")
		}
		line = append(line, one[:n]...)
	}
}

// confirm asks a question that is answered with yes. Without a terminal nobody can answer: the flag that answers it is named.
func (s *site) confirm(question, flag string) (bool, error) {
	if !s.d.In().IsTerminal() {
		return false, fault.New(fault.Invalid, "%s Say so with %s", question, flag)
	}
	fmt.Fprint(s.d.Err(), question+" [y/N] ")
	var answer string
	if _, err := fmt.Fscanln(s.d.In(), &answer); err != nil {
		return false, nil
	}
	return strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes"), nil
}

// each does something for several names, prints those that it was done for, and tells of all failures.
func (s *site) each(names []string, do func(name string) error) error {
	var errs []error
	for _, n := range names {
		if err := do(n); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(s.d.Out(), n)
	}
	return errors.Join(errs...)
}

// done prints the name of what was done.
func (s *site) done(name string) error {
	_, err := fmt.Fprintln(s.d.Out(), name)
	return err
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
