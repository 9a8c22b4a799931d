package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/opts"
	"github.com/docker/cli/templates"
	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/spf13/cobra"
)

// printTemplate prints v as a Go template says.
func printTemplate(w io.Writer, format string, v any) error {
	t, err := templates.Parse(format)
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	if err := t.Execute(w, v); err != nil {
		return err
	}
	_, err = fmt.Fprintln(w)
	return err
}

// A cacheRow is a record of the cache as `du` shows it, for templates too.
type cacheRow struct {
	ID          string
	Parents     []string
	CreatedAt   string
	Mutable     bool
	Reclaimable bool
	Shared      bool
	Size        string
	Description string
	UsageCount  int
	LastUsedAt  string
	Type        string
}

func rowOf(u *client.UsageInfo) cacheRow {
	r := cacheRow{
		ID: u.ID, Parents: u.Parents, CreatedAt: u.CreatedAt.String(), Mutable: u.Mutable, Reclaimable: !u.InUse, Shared: u.Shared,
		Size: units.HumanSize(float64(u.Size)), Description: u.Description, UsageCount: u.UsageCount, Type: string(u.RecordType),
	}
	if u.LastUsedAt != nil {
		r.LastUsedAt = units.HumanDuration(time.Since(*u.LastUsedAt)) + " ago"
	}
	return r
}

func newUsage(d *command.DockerCli) *cobra.Command {
	filter := opts.NewFilterOpt()
	var verbose bool
	var format string
	var limit *time.Duration
	c := &cobra.Command{
		Use:     "du",
		Short:   "Disk usage",
		Example: "  berth buildx du\n  berth buildx du --filter type=exec.cachemount --verbose",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "" && verbose {
				return errors.New("--format and --verbose cannot be used together")
			}
			selection, _, err := cacheFilter(filter)
			if err != nil {
				return err
			}
			b, err := within(cmd.Context(), d, *limit)
			if err != nil {
				return failure(d, err, nil)
			}
			defer b.Close()
			list, err := b.DiskUsage(cmd.Context(), client.WithFilter(selection))
			if err != nil {
				return failure(d, err, nil)
			}
			switch {
			case verbose || format == "pretty":
				for _, u := range list {
					printRecord(d.Out(), u)
				}
			case format == "" || format == "table":
				if err := printTable(d.Out(), list); err != nil {
					return err
				}
			case format == "json":
				format = "{{json .}}"
				fallthrough
			default:
				for _, u := range list {
					if err := printTemplate(d.Out(), format, rowOf(u)); err != nil {
						return err
					}
				}
				return nil
			}
			if len(filter.Value()) > 0 {
				return nil
			}
			return printSums(d.Out(), list)
		},
		DisableFlagsInUseLine: true,
	}
	limit = patience(c)
	c.Flags().Var(&filter, "filter", "Provide filter values")
	c.Flags().StringVar(&format, "format", "", "Format the output")
	c.Flags().BoolVar(&verbose, "verbose", false, `Shorthand for "--format=pretty"`)
	return c
}

func printTable(out io.Writer, list []*client.UsageInfo) error {
	w := tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)
	fmt.Fprintln(w, "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED")
	for _, u := range list {
		printRow(w, u)
	}
	return w.Flush()
}

func printRow(w io.Writer, u *client.UsageInfo) {
	r := rowOf(u)
	if r.Mutable {
		r.ID += "*"
	}
	if r.Shared {
		r.Size += "*"
	}
	fmt.Fprintf(w, "%s\t%v\t%s\t%s\n", r.ID, r.Reclaimable, r.Size, r.LastUsedAt)
}

func printRecord(out io.Writer, u *client.UsageInfo) {
	r := rowOf(u)
	line := func(key, v string) {
		if v != "" {
			fmt.Fprintf(out, "%-13s %s\n", key+":", v)
		}
	}
	line("ID", r.ID)
	if len(r.Parents) > 0 {
		fmt.Fprintln(out, "Parents:")
		for _, p := range r.Parents {
			fmt.Fprintf(out, " - %s\n", p)
		}
	}
	line("Created at", r.CreatedAt)
	line("Mutable", fmt.Sprint(r.Mutable))
	line("Reclaimable", fmt.Sprint(r.Reclaimable))
	line("Shared", fmt.Sprint(r.Shared))
	line("Size", r.Size)
	line("Description", r.Description)
	line("Usage count", fmt.Sprint(r.UsageCount))
	line("Last used", r.LastUsedAt)
	line("Type", r.Type)
	fmt.Fprintln(out)
}

func printSums(out io.Writer, list []*client.UsageInfo) error {
	var total, reclaimable, shared int64
	for _, u := range list {
		total += u.Size
		if !u.InUse {
			reclaimable += u.Size
		}
		if u.Shared {
			shared += u.Size
		}
	}
	w := tabwriter.NewWriter(out, 1, 8, 1, '\t', 0)
	if shared > 0 {
		fmt.Fprintf(w, "Shared:\t%s\nPrivate:\t%s\n", units.HumanSize(float64(shared)), units.HumanSize(float64(total-shared)))
	}
	fmt.Fprintf(w, "Reclaimable:\t%s\nTotal:\t%s\n", units.HumanSize(float64(reclaimable)), units.HumanSize(float64(total)))
	return w.Flush()
}

// cacheFilter turns --filter into BuildKit's: the conditions, and how long a record must be unused.
func cacheFilter(f opts.FilterOpt) ([]string, time.Duration, error) {
	values := f.Value()
	var unused time.Duration
	var conditions []string
	if len(values["until"]) > 0 && len(values["unused-for"]) > 0 {
		return nil, 0, errors.New(`conflicting filters "until" and "unused-for"`)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		given := slices.Sorted(maps.Keys(values[key]))
		if len(given) > 1 {
			return nil, 0, fmt.Errorf("%q filter expects only one value", key)
		}
		switch {
		case key == "until" || key == "unused-for":
			var err error
			if unused, err = time.ParseDuration(given[0]); err != nil {
				return nil, 0, fmt.Errorf("%q filter expects a duration (e.g., '24h'): %w", key, err)
			}
		case len(given) == 0 || given[0] == "":
			conditions = append(conditions, key)
		case key == "id":
			conditions = append(conditions, "id~="+given[0])
		case strings.HasSuffix(key, "!") || strings.HasSuffix(key, "~"):
			conditions = append(conditions, key+"="+given[0])
		default:
			conditions = append(conditions, key+"=="+given[0])
		}
	}
	if len(conditions) == 0 {
		return nil, unused, nil
	}
	return []string{strings.Join(conditions, ",")}, unused, nil
}

// pruneOptions are the flags of buildx prune.
type pruneOptions struct {
	all, force, verbose     bool
	filter                  opts.FilterOpt
	reserved, used, minFree opts.MemBytes
	limit                   *time.Duration
}

func newPrune(d *command.DockerCli) *cobra.Command {
	o := pruneOptions{filter: opts.NewFilterOpt()}
	c := &cobra.Command{
		Use:                   "prune",
		Short:                 "Remove build cache",
		Example:               "  berth buildx prune\n  berth buildx prune --force --filter unused-for=72h\n  berth buildx prune --all --reserved-space 10gb",
		Args:                  cli.NoArgs,
		RunE:                  func(cmd *cobra.Command, _ []string) error { return failure(d, o.run(cmd.Context(), d), nil) },
		DisableFlagsInUseLine: true,
	}
	o.limit = patience(c)
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Include internal/frontend images")
	f.Var(&o.filter, "filter", "Provide filter values")
	f.BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	f.Var(&o.used, "max-used-space", "Maximum amount of disk space allowed to keep for cache")
	f.Var(&o.minFree, "min-free-space", "Target amount of free disk space after pruning")
	f.Var(&o.reserved, "reserved-space", "Amount of disk space always allowed to keep for cache")
	f.BoolVar(&o.verbose, "verbose", false, "Provide a more verbose output")
	f.Var(&o.reserved, "keep-storage", "Amount of disk space to keep for cache")
	_ = f.MarkDeprecated("keep-storage", "keep-storage flag has been changed to reserved-space")
	return c
}

func (o *pruneOptions) run(ctx context.Context, d *command.DockerCli) error {
	selection, unused, err := cacheFilter(o.filter)
	if err != nil {
		return err
	}
	if !o.force {
		what := "all dangling build cache"
		if o.all {
			what = "all build cache"
		}
		fmt.Fprintf(d.Out(), "WARNING! This will remove %s. Are you sure you want to continue? [y/N] ", what)
		line, _ := bufio.NewReader(d.In()).ReadString('\n')
		if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
			return nil
		}
	}
	c, err := within(ctx, d, *o.limit)
	if err != nil {
		return err
	}
	defer c.Close()
	gone, shown := make(chan client.UsageInfo), make(chan struct{})
	var total int64
	go func() {
		defer close(shown)
		w := tabwriter.NewWriter(d.Out(), 1, 8, 1, '\t', 0)
		first := true
		for u := range gone {
			total += u.Size
			if o.verbose {
				printRecord(d.Out(), &u)
				continue
			}
			if first {
				fmt.Fprintln(w, "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED")
				first = false
			}
			printRow(w, &u)
			_ = w.Flush()
		}
	}()
	options := []client.PruneOption{
		client.WithKeepOpt(unused, o.reserved.Value(), o.used.Value(), o.minFree.Value()),
		client.WithFilter(selection),
	}
	if o.all {
		options = append(options, client.PruneAll)
	}
	err = c.Prune(ctx, gone, options...)
	close(gone)
	<-shown
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(d.Out(), "Total:\t%s\n", units.HumanSize(float64(total)))
	return err
}
