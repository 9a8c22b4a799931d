package apparmor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"berth/base/fault"
)

// DefaultProfile is the profile of containers that name none.
const DefaultProfile = "docker-default"

// Unconfined stands for no profile.
const Unconfined = "unconfined"

// A host is where AppArmor's files are; tests have one of their own.
type host struct {
	root   string // the file system's root
	parser string // apparmor_parser
}

func here() host { return host{"/", "apparmor_parser"} }

// Enabled reports whether the kernel confines processes with AppArmor.
func Enabled() bool { return here().enabled() }

func (h host) enabled() bool {
	b, err := os.ReadFile(filepath.Join(h.root, "sys/module/apparmor/parameters/enabled"))
	return err == nil && len(b) > 0 && b[0] == 'Y'
}

// loaded gives the mode of a loaded profile: "enforce", "complain", "kill" or "unconfined"; "" if no such
// profile is loaded. Only root may ask.
func (h host) loaded(name string) (string, error) {
	f, err := os.Open(filepath.Join(h.root, "sys/kernel/security/apparmor/profiles"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fault.New(fault.Unavailable, "cannot see which AppArmor profiles are loaded: mount securityfs on /sys/kernel/security")
	}
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "list AppArmor profiles")
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		// docker-default (enforce); a name may itself contain blanks and parentheses
		line := s.Text()
		i := strings.LastIndex(line, " (")
		if i < 0 || !strings.HasSuffix(line, ")") || line[:i] != name {
			continue
		}
		return line[i+2 : len(line)-1], nil
	}
	return "", fault.Wrap(fault.Internal, s.Err(), "list AppArmor profiles")
}

// Ensure makes the default profile, or one of the same rules under another name, known to the kernel
// unless it is already.
func Ensure(ctx context.Context, name string) error { return here().ensure(ctx, name) }

func (h host) ensure(ctx context.Context, name string) error {
	mode, err := h.loaded(name)
	if err != nil || mode != "" {
		return err
	}
	p := h.profile(name)
	if err := p.check(); err != nil {
		return err
	}
	return h.load(ctx, p.Text())
}

// load compiles a profile's text and loads it, in place of one of the same name.
func (h host) load(ctx context.Context, text string) error {
	parser, err := exec.LookPath(h.parser)
	if err != nil {
		return fault.New(fault.Unavailable, "the kernel has AppArmor, but apparmor_parser, which loads profiles, is not installed: "+
			"install the package apparmor, or run containers with --security-opt apparmor=unconfined")
	}
	// -K: no cache, the text may differ between engines of one machine; -r: replace.
	cmd := exec.CommandContext(ctx, parser, "-K", "-r")
	cmd.Stdin = strings.NewReader(text)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fault.Wrap(fault.Internal, err, "load an AppArmor profile: %s", strings.TrimSpace(out.String()))
	}
	return nil
}

// current gives the profile this process runs in, without its mode; Unconfined if none.
func (h host) current() string {
	for _, p := range [...]string{"proc/self/attr/apparmor/current", "proc/self/attr/current"} {
		b, err := os.ReadFile(filepath.Join(h.root, p))
		if err != nil {
			continue
		}
		name := strings.TrimRight(string(b), "\x00\n")
		if i := strings.LastIndex(name, " ("); i > 0 && strings.HasSuffix(name, ")") {
			name = name[:i]
		}
		if name != "" {
			return name
		}
	}
	return Unconfined
}

// ExecAttr gives the file a process opens below /proc and the words it writes there in one write(2) to
// enter a profile at its next execve(2) (Linux 5.8; below 5.8 the file was attr/exec). Both are "" for
// Unconfined and "".
func ExecAttr(profile string) (path, value string) {
	if profile == "" || profile == Unconfined {
		return "", ""
	}
	return "/proc/self/attr/apparmor/exec", "exec " + profile
}

// CheckName refuses what cannot be a profile's name: it would be cut or mean something else when it is
// written to the kernel. Whether the profile is loaded is another question.
func CheckName(profile string) error {
	if profile == "" || len(profile) > 4096 || strings.ContainsAny(profile, "\x00\n\r") {
		return fault.New(fault.Invalid, "invalid AppArmor profile name %q", profile)
	}
	return nil
}
