package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/base/fault"
	"berth/base/removal"
	"berth/cli/table"
)

// planFlags are what every prune has beside Docker's flags.
type planFlags struct {
	plan  bool
	save  string // file for the plan; "-": standard output
	apply string // file of a plan; "-": standard input
}

// extendPrune adds --plan, --save and --apply to a prune. filters completes the filters as the command would before it asks; nil: they are
// complete.
func extendPrune(c *cobra.Command, d *command.DockerCli, noun string, filters func(client.Filters) client.Filters) {
	extendPlanned(c, d, noun, strings.TrimSuffix(noun, "s")+" prune", func(f client.Filters) url.Values {
		if filters != nil {
			f = filters(f)
		}
		return filterQuery(f)
	})
}

// extendSystemPrune is extendPrune for all kinds of things at once.
func extendSystemPrune(c *cobra.Command, d *command.DockerCli) {
	extendPlanned(c, d, "system", "system prune", func(f client.Filters) url.Values {
		q := filterQuery(f)
		for _, name := range []string{"all", "volumes"} {
			if flag := c.Flag(name); flag != nil && flag.Value.String() == "true" {
				q.Set(name, "1")
			}
		}
		return q
	})
}

func filterQuery(f client.Filters) url.Values {
	text, err := json.Marshal(f)
	if err != nil {
		text = nil // cannot be: strings only
	}
	return url.Values{"filters": {string(text)}}
}

func extendPlanned(c *cobra.Command, d *command.DockerCli, noun, name string, query func(client.Filters) url.Values) {
	var p planFlags
	p.add(c.Flags())
	c.Example = "  berth " + name + " --plan\n  berth " + name + " --plan --save plan.json\n  berth " + name + " --apply plan.json"
	prune := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := p.check(); err != nil {
			return err
		}
		if err := p.alone(cmd.Flags()); err != nil {
			return err
		}
		r := newRemote(d.Client())
		switch {
		case p.apply != "":
			return applyPlan(cmd.Context(), d, r, "berth "+name+" --apply", "/"+noun+"/prune", p.apply)
		case !p.plan:
			return prune(cmd, args)
		}
		asked := client.Filters{}
		if f, ok := cmd.Flag("filter").Value.(*opts.FilterOpt); ok {
			asked = f.Value()
		}
		var raw json.RawMessage
		path := "/" + noun + "/prune?" + query(command.PruneFilters(d, asked)).Encode()
		if err := r.call(cmd.Context(), "berth "+name+" --plan", http.MethodGet, path, nil, &raw); err != nil {
			return err
		}
		var plan removal.Plan
		if err := json.Unmarshal(raw, &plan); err != nil {
			return fault.Wrap(fault.Internal, err, "understand the engine's answer")
		}
		return p.show(d, noun, &plan, raw)
	}
}

func (p *planFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&p.plan, "plan", false, "Say what would be removed and what not, and why, and remove nothing")
	f.StringVar(&p.save, "save", "", "With --plan: also write the plan to this file (\"-\": to standard output, alone)")
	f.StringVar(&p.apply, "apply", "", "Remove what the plan in this file says, and nothing else (\"-\": standard input)")
}

func (p *planFlags) check() error {
	switch {
	case p.plan && p.apply != "":
		return fault.New(fault.Invalid, "--plan makes a plan, --apply carries one out: give one of them")
	case p.save != "" && !p.plan:
		return fault.New(fault.Invalid, "--save needs --plan")
	}
	return nil
}

// alone refuses what selects things beside a plan that says what goes: somebody would think that it holds.
func (p *planFlags) alone(f *pflag.FlagSet) error {
	if p.apply == "" {
		return nil
	}
	for _, name := range []string{"filter", "all", "volumes"} {
		if f.Changed(name) {
			return fault.New(fault.Invalid, "--%s selects for --plan; --apply removes what the plan says, and nothing else", name)
		}
	}
	return nil
}

// show prints a plan and writes it to a file if that was asked for.
func (p *planFlags) show(d *command.DockerCli, noun string, plan *removal.Plan, raw []byte) error {
	switch p.save {
	case "-":
		_, err := d.Out().Write(append(raw, '\n'))
		return err
	case "":
	default:
		if err := writeWhole(p.save, strings.NewReader(string(raw)+"\n")); err != nil {
			return err
		}
	}
	_, width := d.Out().GetTtySize()
	printPlan(d.Out(), noun, plan, int(width), time.Now())
	return nil
}

// kindNames are the words for kinds of things in plans, in the order in which they are shown.
var kindNames = []struct{ kind, one, many string }{
	{removal.Container, "container", "containers"}, {removal.Network, "network", "networks"}, {removal.Volume, "volume", "volumes"},
	{removal.Image, "image", "images"}, {"", "", ""},
}

func printPlan(out io.Writer, noun string, p *removal.Plan, width int, now time.Time) {
	if len(p.Remove) == 0 {
		if noun == "system" {
			noun = "containers, networks, volumes or images"
		}
		fmt.Fprintf(out, "No %s would be removed.\n", noun)
	}
	for _, k := range kindNames {
		// An engine that says nothing of kinds means what was asked for.
		items := removal.Of(p.Remove, k.kind)
		if k.kind == "" {
			k.one, k.many = strings.TrimSuffix(noun, "s"), noun
		}
		switch len(items) {
		case 0:
			continue
		case 1:
			fmt.Fprintf(out, "Would remove 1 %s:\n", k.one)
		default:
			fmt.Fprintf(out, "Would remove %d %s:\n", len(items), k.many)
		}
		printItems(out, items, width, now)
	}
	if p.Reclaimable > 0 {
		fmt.Fprintf(out, "\nSpace that would be reclaimed: %s\n", units.HumanSize(float64(p.Reclaimable)))
	}
	printSpared(out, p.Spare, width, now)
}

// sparedShown is how many of the things that stay are named.
const sparedShown = 30

func printSpared(out io.Writer, items []removal.Item, width int, now time.Time) {
	if len(items) == 0 {
		return
	}
	more := 0
	if len(items) > sparedShown {
		items, more = items[:sparedShown], len(items)-sparedShown
	}
	fmt.Fprintln(out, "\nWould stay:")
	printItems(out, items, width, now)
	if more > 0 {
		fmt.Fprintf(out, "  … and %d more, see --save -\n", more)
	}
}

// printItems prints a row each, without the columns in which nothing stands.
func printItems(out io.Writer, items []removal.Item, width int, now time.Time) {
	rows := make([][]string, len(items))
	used := make([]bool, 4)
	for n, i := range items {
		rows[n] = []string{"  " + i.Name, itemSize(i), itemAge(i, now), i.Why}
		for c, text := range rows[n] {
			used[c] = used[c] || text != ""
		}
	}
	short := make([][]string, len(rows))
	for n, r := range rows {
		for c, text := range r {
			if used[c] {
				short[n] = append(short[n], text)
			}
		}
	}
	// The first row of a table is its head, which is never broken; here all are alike.
	table.Print(out, short, width)
}

func itemSize(i removal.Item) string {
	switch {
	case i.Kind == removal.Network, i.Kind == "" && i.Size == 0:
		return ""
	case i.Size < 0 && i.Look == "" && i.Kind != "":
		return "" // of what stays nobody has asked
	case i.Size < 0:
		return "size unknown"
	}
	return units.HumanSize(float64(i.Size))
}

func itemAge(i removal.Item, now time.Time) string {
	switch {
	case !i.LastUsed.IsZero():
		return "last used " + units.HumanDuration(now.Sub(i.LastUsed)) + " ago"
	case !i.Created.IsZero():
		return "made " + units.HumanDuration(now.Sub(i.Created)) + " ago"
	}
	return ""
}

// applyPlan has the engine carry out the plan in a file.
func applyPlan(ctx context.Context, d *command.DockerCli, r *remote, command, path, file string) error {
	from := io.Reader(d.In())
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		from = f
	}
	raw, err := io.ReadAll(from)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "read the plan")
	}
	if !json.Valid(raw) {
		return fault.New(fault.Invalid, "%s holds no plan", file)
	}
	var out removal.Outcome
	if err := r.call(ctx, command, http.MethodPost, path, json.RawMessage(raw), &out); err != nil {
		return err
	}
	_, width := d.Out().GetTtySize()
	printOutcome(d.Out(), &out, int(width), time.Now())
	return nil
}

func printOutcome(out io.Writer, o *removal.Outcome, width int, now time.Time) {
	if len(o.Removed) == 0 {
		fmt.Fprintln(out, "Nothing was removed.")
	} else {
		fmt.Fprintln(out, "Removed "+strconv.Itoa(len(o.Removed))+":")
		for i := range o.Removed {
			o.Removed[i].Why = o.Removed[i].Kind
		}
		printItems(out, o.Removed, width, now)
	}
	if len(o.Skipped) > 0 {
		fmt.Fprintln(out, "\nSkipped, as it is not what the plan was made of any more:")
		printItems(out, o.Skipped, width, now)
	}
	switch {
	case o.Trashed && len(o.Removed) > 0:
		fmt.Fprintln(out, "\nIt is in the trash: berth trash ls")
	default:
		fmt.Fprintf(out, "\nTotal reclaimed space: %s\n", units.HumanSize(float64(o.Reclaimed)))
	}
}
