package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"berth/base/checkup"
	"berth/base/fault"
	"berth/base/wait"
	"berth/cli/daemon"
	"berth/cli/progress"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

type checkFlags struct {
	repair, json, machine, store, images bool
}

func newCheck(d *command.DockerCli) *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check [OPTIONS]",
		Short: "Say what this machine lacks, and verify what is on disk",
		Long: "Say what this machine's kernel has and lacks for containers, and what Berth does where it lacks something.\nThat part runs `berthd system check`, which it finds beside itself or on PATH, and needs no engine.\n" +
			"Where an engine answers, it then verifies its whole store: images with their content, records and layers of containers, volumes,\n" +
			"networks, plugins, and its journals. Containers run on meanwhile. With --repair it makes again what can be derived or fetched\n" +
			"again from where it came, and only that; what else is damaged is named, with what a person can do about it.\n\n" +
			"Exit codes: 0 nothing is damaged, or all of it was repaired; 1 something is damaged, or no engine can run here; 2 no engine\n" +
			"answered although the store was to be checked.",
		Example: "  berth system check\n  berth system check --store --repair\n  berth system check --machine\n  berth system check --store --json",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return systemCheck(cmd.Context(), d, f)
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().BoolVar(&f.repair, "repair", false, "Repair what can be made again from what is here, or fetched again")
	c.Flags().BoolVar(&f.json, "json", false, "Print the rooms of the store as one JSON object, and nothing about the machine")
	c.Flags().BoolVar(&f.machine, "machine", false, "Only say what the machine has and lacks")
	c.Flags().BoolVar(&f.store, "store", false, "Only verify the store")
	c.Flags().BoolVar(&f.images, "images", false, "Beside the machine verify images only, as berth image fsck does")
	c.MarkFlagsMutuallyExclusive("machine", "store", "images")
	return c
}

func systemCheck(ctx context.Context, d *command.DockerCli, f checkFlags) error {
	if !f.store && !f.json {
		if err := runDaemon([]string{"system", "check"}); err != nil || f.machine {
			return err
		}
	}
	if f.images {
		fmt.Fprintln(d.Out())
		return imageFsck(ctx, d, "berth system check --images", f.repair)
	}
	wanted := f.store || f.json || f.repair
	if !wanted && d.DockerEndpoint().Host == "unix://"+daemon.Socket() && daemon.Absent() {
		return nil
	}
	if _, err := d.Client().Ping(ctx, client.PingOptions{}); err != nil {
		if !wanted {
			fmt.Fprintf(d.Err(), "\nThe store was not checked: no engine answers (%v)\n", err)
			return nil
		}
		return cli.StatusError{Status: err.Error(), StatusCode: 2}
	}
	if !f.store && !f.json {
		fmt.Fprintln(d.Out())
	}
	return checkStore(ctx, d, f)
}

// checkLine is one line of the engine's answer to POST /berth/v1/system/check.
type checkLine struct {
	checkup.Room
	Sum *struct {
		Rooms    int `json:"rooms"`
		Damaged  int `json:"damaged"`
		Repaired int `json:"repaired"`
	} `json:"sum,omitempty"`
	Error string `json:"error,omitempty"`
}

func checkStore(ctx context.Context, d *command.DockerCli, f checkFlags) error {
	path := "/system/check"
	r := newRemote(d.Client())
	if f.repair {
		path += "?repair=1"
		auth, err := allCredentials(d)
		if err != nil {
			return err
		}
		r.header = http.Header{"X-Registry-Config": {auth}}
	}
	answer, err := r.open(ctx, "berth system check", http.MethodPost, path, nil)
	if err != nil {
		return err
	}
	defer answer.Close()
	say := progress.Start(d.Err(), "verifying the store")
	defer say.Stop()
	var rooms []checkup.Room
	for in := json.NewDecoder(answer); ; {
		var l checkLine
		if err := in.Decode(&l); err != nil {
			return fault.Wrap(fault.Unavailable, err, "the engine stopped before the check was over")
		}
		switch {
		case l.Error != "":
			return fault.New(fault.Internal, "Error response from daemon: %s", l.Error)
		case l.Sum == nil:
			rooms = append(rooms, l.Room)
			if !f.json {
				say.Stop()
				printRoom(d.Out(), l.Room, f.repair)
			}
			continue
		}
		say.Stop()
		if f.json {
			out := json.NewEncoder(d.Out())
			out.SetIndent("", "  ")
			if err := out.Encode(map[string]any{"rooms": rooms, "damaged": l.Sum.Damaged, "repaired": l.Sum.Repaired}); err != nil {
				return err
			}
		} else {
			printSum(d.Out(), l, f.repair)
		}
		if l.Sum.Damaged > l.Sum.Repaired {
			return cli.StatusError{StatusCode: 1}
		}
		return nil
	}
}

func printSum(w io.Writer, l checkLine, repair bool) {
	switch s := l.Sum; {
	case s.Damaged == 0:
		fmt.Fprintln(w, "nothing is damaged")
	case repair:
		fmt.Fprintf(w, "%d damaged, %d repaired\n", s.Damaged, s.Repaired)
	default:
		fmt.Fprintf(w, "%d damaged; berth system check --repair makes again what can be made again\n", s.Damaged)
	}
}

// printRoom prints what was looked at in a room, and what is wrong there.
func printRoom(w io.Writer, r checkup.Room, repair bool) {
	var looked []string
	for _, c := range r.Checked {
		looked = append(looked, fmt.Sprintf("%d %s", c.N, c.What))
	}
	verdict := "whole"
	if len(r.Damages) > 0 {
		verdict = fmt.Sprintf("%d damaged", len(r.Damages))
	}
	fmt.Fprintf(w, "%-11s %s (%s)\n", r.Name, verdict, strings.Join(looked, ", "))
	for _, d := range r.Damages {
		fmt.Fprintf(w, "  %s: %s\n", d.Subject, d.What)
		switch {
		case d.Repaired:
			fmt.Fprintf(w, "    repaired: %s\n", d.Repair)
		case d.Failed != "":
			fmt.Fprintf(w, "    not repaired: %s\n", d.Failed)
		case d.Repair != "" && !repair:
			fmt.Fprintf(w, "    --repair: %s\n", d.Repair)
		case d.Advice != "":
			fmt.Fprintf(w, "    %s\n", d.Advice)
		}
	}
}

func newWaits(d *command.DockerCli) *cobra.Command {
	var older time.Duration
	c := &cobra.Command{
		Use:   "waits [OPTIONS]",
		Short: "List what is under way and what it waits for",
		Long: "List the work that is under way in the engine: verbs on containers with the step they are at, requests, and who waits for whom.\n" +
			"It is what to look at when something does not come to an end; the engine answers it while everything else hangs.",
		Example: "  berth system waits\n  berth system waits --older 10s",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []wait.Entry
			if err := newRemote(d.Client()).call(cmd.Context(), "berth system waits", http.MethodGet, "/waits?older="+older.String(), nil, &list); err != nil {
				return err
			}
			printWaits(d.Out(), list, time.Now())
			return nil
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().DurationVar(&older, "older", 0, "Only what has been under way for at least this long")
	return c
}

func printWaits(w io.Writer, list []wait.Entry, now time.Time) {
	for _, e := range list {
		if strings.HasSuffix(e.What, "/berth/v1/waits") {
			continue // this question
		}
		on := e.On
		if len(on) == 64 {
			on = on[:12]
		}
		fmt.Fprintf(w, "%-14s %s %s", units.HumanDuration(now.Sub(e.Since)), e.What, on)
		if e.Step != "" {
			fmt.Fprintf(w, ", at step %s for %s", e.Step, units.HumanDuration(now.Sub(e.StepSince)))
		}
		if e.Behind != "" {
			fmt.Fprintf(w, ", waits for: %s", e.Behind)
		}
		fmt.Fprintln(w)
	}
}
