package firewall

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/base/fault"
)

// trustedZone is firewalld's zone for interfaces on which everything is accepted: what our own table has not dropped.
const trustedZone = "trusted"

// do asks the manager. It may be asked again and again: what is there already stays as it is.
func (a Ask) do(ctx context.Context) error {
	if a.By != "" {
		return nil
	}
	var err error
	if a.Kind == KindFirewalld {
		err = a.trust(ctx)
	} else {
		err = a.accept(ctx)
	}
	return fault.In(err, "ask %s to let containers' traffic through", a.name())
}

// accept writes our chain of iptables anew, as one change, where it is not what it should be, and puts the jump to it where it is not yet.
func (a Ask) accept(ctx context.Context) error {
	program := a.program()
	out, err := run(ctx, "", program, "-w", "5", "-S")
	if err != nil {
		return err
	}
	ours, point := appended(out, a.Ours), appended(out, a.Point)
	want := make([]string, 0, len(ours))
	for _, r := range a.rules() {
		want = append(want, strings.Join(r, " "))
	}
	if !slices.Equal(ours, want) {
		restore := "*filter\n:" + a.Ours + " - [0:0]\n" + strings.Join(want, "\n") + "\nCOMMIT\n" // which empties the chain first
		if _, err := run(ctx, restore, program+"-restore", "-w", "5", "--noflush"); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(point, func(r string) bool { return strings.HasSuffix(r, " -j "+a.Ours) }) {
		return nil
	}
	// After what the administrator has put there, but before a rule that ends the way of all: the "return" with which dockerd ends its chain, a last "reject".
	where := []string{"-w", "5", "-A", a.Point}
	if i := slices.IndexFunc(point, endsAll); i >= 0 {
		where = []string{"-w", "5", "-I", a.Point, strconv.Itoa(i + 1)}
	}
	_, err = run(ctx, "", program, append(where, a.jump()...)...)
	return err
}

// endsAll reports whether no packet comes past a rule.
func endsAll(rule string) bool {
	words := strings.Fields(rule)
	return refuses(words) || len(words) == 4 && words[2] == "-j" && (words[3] == "RETURN" || words[3] == "ACCEPT")
}

// appended are the rules of a chain in what iptables -S prints.
func appended(out, chain string) (rules []string) {
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "-A "+chain+" ") {
			rules = append(rules, strings.TrimSpace(line))
		}
	}
	return rules
}

// trust puts our bridges into the trusted zone, for as long as this firewalld runs. One that the administrator has put elsewhere stays there.
func (a Ask) trust(ctx context.Context) error {
	zones, err := activeZones(ctx)
	if err != nil {
		return err
	}
	add := []string{"--zone=" + trustedZone}
	for _, br := range a.Bridges {
		if zones[br] == "" {
			add = append(add, "--add-interface="+br)
		}
	}
	if len(add) == 1 {
		return nil
	}
	_, err = run(ctx, "", "firewall-cmd", add...)
	return err
}

// distrust takes our bridges out of the trusted zone.
func (a Ask) distrust(ctx context.Context) error {
	zones, err := activeZones(ctx)
	if err != nil {
		return err
	}
	remove := []string{"--zone=" + trustedZone}
	for _, br := range a.Bridges {
		if zones[br] == trustedZone {
			remove = append(remove, "--remove-interface="+br)
		}
	}
	if len(remove) == 1 {
		return nil
	}
	_, err = run(ctx, "", "firewall-cmd", remove...)
	return err
}

// activeZones asks firewalld for the zone of each interface that is in one.
func activeZones(ctx context.Context) (map[string]string, error) {
	out, err := run(ctx, "", "firewall-cmd", "--get-active-zones")
	return zonesOf(out), err
}

// zonesOf reads zones, a line each, below which a line lists their interfaces:
//
//	public (default)
//	  interfaces: eth0 eth1
func zonesOf(out string) map[string]string {
	zones, zone := map[string]string{}, ""
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case line[0] != ' ' && line[0] != '\t':
			zone = words[0]
		case words[0] == "interfaces:":
			for _, name := range words[1:] {
				zones[name] = zone
			}
		}
	}
	return zones
}

// undo takes back what was asked for. What is gone already is no error.
func (a Ask) undo(ctx context.Context) error {
	if a.By != "" {
		return nil
	}
	if a.Kind == KindFirewalld {
		return a.distrust(ctx)
	}
	program := a.program()
	out, err := run(ctx, "", program, "-w", "5", "-S")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(out) {
		// the jump may stand in more than one chain: the point changes when another manager comes
		if f := strings.Fields(line); len(f) > 2 && f[0] == "-A" && f[len(f)-1] == a.Ours && f[len(f)-2] == "-j" {
			_, err := run(ctx, "", program, append([]string{"-w", "5", "-D", f[1]}, a.jump()...)...)
			errs = append(errs, err)
		}
	}
	if strings.Contains(out, "-N "+a.Ours+"\n") {
		_, flush := run(ctx, "", program, "-w", "5", "-F", a.Ours)
		_, gone := run(ctx, "", program, "-w", "5", "-X", a.Ours)
		errs = append(errs, flush, gone)
	}
	return errors.Join(errs...)
}

// run runs a manager's program for at most ten seconds and gives what it prints.
func run(ctx context.Context, input, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Stdin = strings.NewReader(input)
	c.WaitDelay = time.Second
	var out, words strings.Builder
	c.Stdout, c.Stderr = &out, &words
	if err := c.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return "", fault.New(fault.Unavailable, "%s is not installed", program)
		}
		return "", fault.Wrap(fault.Unavailable, err, "%s %s: %s", program, strings.Join(args, " "), strings.TrimSpace(words.String()))
	}
	return out.String(), nil
}
