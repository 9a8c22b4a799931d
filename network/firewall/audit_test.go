package firewall

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
)

func TestAudit(t *testing.T) {
	blockers := []Manager{{Kind: KindIptables, V4: true, Table: "filter", Chain: "INPUT", UFW: true, InputDrops: true}, {Kind: KindNft, Table: "inet mine", Chain: "in", InputDrops: true}}
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			if g.state.Policy.ObeyInput || g.name == "modes" {
				g.state.Managers = blockers
			}
			var b strings.Builder
			w := tabwriter.NewWriter(&b, 0, 1, 2, ' ', 0)
			fmt.Fprintln(w, "CONTAINER\tNETWORK\tPORT\tHOST\tREACHED FROM\tRULE\tNOTES")
			for _, e := range Audit(g.state) {
				fmt.Fprintf(w, "%s\t%s\t%d/%s\t%s\t%s\t%s\t%s\n", e.ContainerID, e.Network, e.Port, e.Proto, e.Host, e.Reach, e.Rule, strings.Join(e.Notes, "; "))
			}
			w.Flush()
			golden(t, filepath.Join("testdata", g.name+".audit"), b.String())
		})
	}
}

// Every rule that the audit names is one of those that are printed.
func TestAuditNamesRules(t *testing.T) {
	for _, g := range goldens {
		text := bare(Compile(g.state).String())
		for _, e := range Audit(g.state) {
			if e.Rule == Relay {
				continue
			}
			chain, rule, ok := strings.Cut(e.Rule, ": ")
			if !ok || !strings.Contains(text, "chain "+chain+" {") {
				t.Errorf("%s: no chain of %q", g.name, e.Rule)
			}
			set, element, isElement := strings.Cut(strings.TrimSuffix(rule, " }"), " { ")
			key, _, _ := strings.Cut(element, " : ")
			switch {
			case isElement && (!strings.Contains(text, set+" ") || !strings.Contains(text, " "+key+" ")):
				t.Errorf("%s: no element %q", g.name, e.Rule)
			case !isElement && !strings.Contains(text, rule):
				t.Errorf("%s: no rule %q in %s", g.name, rule, text)
			}
		}
	}
	if !slices.ContainsFunc(goldens[1].state.Ports, func(p Port) bool { return p.HostIP.IsValid() && p.HostIP.IsLoopback() }) {
		t.Error("no port on loopback among the examples")
	}
}
