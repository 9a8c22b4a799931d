package firewall

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strings"

	"berth/kernel/nft"
)

// observe finds who else has rules on the host. What cannot be seen is left out.
func (f *Firewall) observe(ctx context.Context) ([]Manager, error) {
	chains, err := f.conn.Chains()
	if err != nil {
		return nil, err
	}
	for i, c := range chains { // a last rule that drops all is as good as a policy
		if c.Hook.Type == nft.Filter && (c.Hook.Point == nft.Forward || c.Hook.Point == nft.Input) && c.Table != f.config.Table && !skipped(c.Table) {
			if chains[i].Hook.Drop, err = f.conn.Refuses(c); err != nil {
				return nil, err
			}
		}
	}
	managers := managersOf(chains, f.config.Table)
	for _, v4 := range []bool{true, false} {
		if !legacyInUse(v4) {
			continue
		}
		out, err := run(ctx, "", Ask{Manager: Manager{Kind: KindLegacy, V4: v4}}.program(), "-w", "5", "-S")
		if err != nil {
			f.config.Log.Warn("iptables-legacy has rules that cannot be read; if its policy for FORWARD is DROP, containers do not reach the world", "error", err)
			continue
		}
		if m, ok := legacyManager(out, v4); ok {
			managers = append(managers, m)
		}
	}
	slices.SortFunc(managers, compareManagers)
	return managers, nil
}

func compareManagers(a, b Manager) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Table, b.Table), -boolean(a.V4, b.V4), cmp.Compare(a.Chain, b.Chain))
}

func boolean(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// managersOf reads managers from the chains that the kernel has. Our own table is none, nor are those that are skipped.
func managersOf(chains []nft.ChainInfo, own string) []Manager {
	names := map[string]bool{}
	for _, c := range chains {
		names[c.Family.String()+" "+c.Table+" "+c.Name] = true
	}
	tables := map[string]*Manager{}
	for _, c := range chains {
		if !c.Base() || c.Table == own || skipped(c.Table) || c.Hook.Type != nft.Filter || c.Family == nft.Bridge {
			continue
		}
		table := c.Family.String() + " " + c.Table
		m := tables[table]
		if m == nil {
			m = &Manager{Kind: KindNft, Table: table}
			describe(m, c, names)
			tables[table] = m
		}
		drops := c.Hook.Drop || m.Kind == KindFirewalld // whose last rules reject
		switch {
		case c.Hook.Point == nft.Forward && drops:
			m.ForwardDrops, m.Chain = true, c.Name
		case c.Hook.Point == nft.Input && drops:
			m.InputDrops = true
			m.Chain = cmp.Or(m.Chain, c.Name)
		}
	}
	var list []Manager
	for _, m := range tables {
		if m.ForwardDrops || m.InputDrops {
			list = append(list, *m)
		}
	}
	return list
}

// skipped tells the tables of any Berth engine by their names, and one that firewalld has for the moment of a reload.
func skipped(table string) bool {
	return table == "berth" || strings.HasPrefix(table, "berth-") || table == "firewalld_policy_drop"
}

// describe says whose table it is that the chain is in.
func describe(m *Manager, c nft.ChainInfo, names map[string]bool) {
	switch {
	case c.Table == "firewalld":
		m.Kind = KindFirewalld
	case c.Table == "filter" && (c.Family == nft.IPv4 || c.Family == nft.IPv6) && strings.ToUpper(c.Name) == c.Name:
		m.Kind, m.V4, m.Table = KindIptables, c.Family == nft.IPv4, "filter"
		prefix := c.Family.String() + " filter "
		m.Point, m.UFW = point(m.V4, func(chain string) bool { return names[prefix+chain] })
	}
}

// point is the chain of iptables in which rules of others are wanted, by the chains that there are.
func point(v4 bool, exists func(string) bool) (chain string, ufw bool) {
	user := "ufw-user-forward"
	if !v4 {
		user = "ufw6-user-forward"
	}
	switch {
	case exists(user):
		return user, true
	case exists("DOCKER-USER"):
		return "DOCKER-USER", false
	}
	return "FORWARD", false
}

// legacyInUse reports whether the older iptables has a filter table in this namespace.
func legacyInUse(v4 bool) bool {
	file := "/proc/thread-self/net/ip6_tables_names"
	if v4 {
		file = "/proc/thread-self/net/ip_tables_names"
	}
	b, err := os.ReadFile(file)
	return err == nil && slices.Contains(strings.Fields(string(b)), "filter")
}

// legacyManager reads the output of iptables-legacy -S.
func legacyManager(out string, v4 bool) (Manager, bool) {
	m := Manager{Kind: KindLegacy, V4: v4, Table: "filter"}
	chains := map[string]bool{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch {
		case f[0] == "-N":
			chains[f[1]] = true
		case f[1] == "FORWARD" && refuses(f):
			m.ForwardDrops, m.Chain = true, f[1]
		case f[1] == "INPUT" && refuses(f):
			m.InputDrops = true
			m.Chain = cmp.Or(m.Chain, f[1])
		}
	}
	m.Point, m.UFW = point(v4, func(c string) bool { return chains[c] })
	return m, m.ForwardDrops || m.InputDrops
}

// refuses reports whether a line of iptables -S, by its words, drops or rejects whatever no other rule accepts: a policy, or a rule without a condition.
func refuses(words []string) bool {
	if words[0] == "-P" {
		return len(words) == 3 && words[2] == "DROP"
	}
	return words[0] == "-A" && len(words) >= 4 && words[2] == "-j" && (words[3] == "DROP" || words[3] == "REJECT")
}
