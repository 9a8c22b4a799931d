package firewall

import (
	"fmt"
	"slices"
	"strings"
)

// Kinds of managers.
const (
	KindIptables  = "iptables"        // iptables-nft: its chains are seen as nftables
	KindLegacy    = "iptables-legacy" // the older tables of the kernel
	KindFirewalld = "firewalld"
	KindNft       = "nft" // somebody's own table
)

// Manager is somebody else with rules on the host, as far as they concern us.
type Manager struct {
	Kind  string
	V4    bool   // of iptables, which has a manager for each family
	Table string // "filter", "inet firewalld", …
	Chain string // its chain that drops: of the hook "forward", or where there is none of "input"

	// Point is the chain in which the manager, or who uses it, wants the rules of others: "DOCKER-USER", "ufw-user-forward",
	// "FORWARD". "" where there is no such place.
	Point string
	UFW   bool // its rules are ufw's

	ForwardDrops bool // what is forwarded and nobody has accepted is dropped
	InputDrops   bool // likewise what comes in
}

// name is how people call it.
func (m Manager) name() string {
	if m.UFW {
		return "ufw"
	}
	if m.Kind == KindNft {
		return "nftables' table " + m.Table
	}
	return m.Kind
}

// Ask is what one manager is asked to let through: whatever goes to or comes from our bridges, on which our own table has decided already.
type Ask struct {
	Manager
	Ours    string   // iptables: name of our chain
	Bridges []string // sorted
	By      string   // "" when we ask ourselves; else why somebody has to do it by hand
}

// asks says what has to be asked for a state, by the managers that it names.
func asks(s State) []Ask {
	var bridges []string
	for _, n := range s.Networks {
		bridges = append(bridges, n.Bridge)
	}
	slices.Sort(bridges)
	var list []Ask
	for _, m := range s.Managers {
		if !m.ForwardDrops || len(bridges) == 0 {
			continue
		}
		a := Ask{Manager: m, Ours: strings.ToUpper(s.table()), Bridges: bridges}
		switch {
		case m.Kind == KindNft:
			a.By = "it has no place for rules of others"
		case s.Policy.NoForeign:
			a.By = "the engine is told to leave others' rules alone"
		}
		list = append(list, a)
	}
	return list
}

// String gives the ask as comments: what the manager then has, in its own words.
func (a Ask) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s drops what is forwarded (%s %s).", a.name(), a.Table, a.Chain)
	if a.By != "" {
		fmt.Fprintf(&b, " Berth changes nothing there: %s. To let containers out:\n", a.By)
	} else {
		b.WriteString(" What our table has let through passes there too, by:\n")
	}
	for _, line := range a.lines() {
		b.WriteString("#   " + line + "\n")
	}
	return b.String()
}

// lines are the commands that do what is asked.
func (a Ask) lines() []string {
	var lines []string
	switch a.Kind {
	case KindFirewalld:
		for _, br := range a.Bridges {
			lines = append(lines, "firewall-cmd --zone="+trustedZone+" --add-interface="+br)
		}
	case KindNft:
		for _, br := range a.Bridges {
			lines = append(lines, fmt.Sprintf("nft insert rule %s %s iifname %q accept", a.Table, a.Chain, br), fmt.Sprintf("nft insert rule %s %s oifname %q accept", a.Table, a.Chain, br))
		}
	default:
		program := a.program()
		lines = append(lines, program+" -N "+a.Ours)
		for _, r := range a.rules() {
			lines = append(lines, program+" "+strings.Join(r, " "))
		}
		lines = append(lines, program+" -A "+a.Point+" "+strings.Join(a.jump(), " "))
	}
	return lines
}

// program is the command of the manager's family and kind.
func (a Ask) program() string {
	p := "iptables"
	if !a.V4 {
		p = "ip6tables"
	}
	if a.Kind == KindLegacy {
		return p + "-legacy"
	}
	return p + "-nft"
}

// rules fill our chain of iptables.
func (a Ask) rules() [][]string {
	var rules [][]string
	for _, br := range a.Bridges {
		rules = append(rules, []string{"-A", a.Ours, "-i", br, "-j", "ACCEPT"}, []string{"-A", a.Ours, "-o", br, "-j", "ACCEPT"})
	}
	return rules
}

// jump leads to it.
func (a Ask) jump() []string {
	return []string{"-m", "comment", "--comment", "berth", "-j", a.Ours}
}
