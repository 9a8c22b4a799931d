package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"

	"berth/cli/build/bake"
	"berth/cli/build/request"
)

// asked is what a bake was to build.
type asked struct {
	names   []string // of targets, in order
	targets map[string]*bake.Target
	groups  map[string]*bake.Group
	call    request.Call // of --call
}

// report prints and writes what a bake gave.
func (o *bakeOptions) report(ctx context.Context, d *command.DockerCli, w *wave, a asked) error {
	if o.metadata != "" {
		all := map[string]any{}
		for _, n := range a.names {
			x := w.turns[n].answer
			m := metadata(x.exporter)
			if x.called == nil {
				addRecord(ctx, d, w.conn, x, m)
			}
			all[n] = m
		}
		if len(w.show.warnings) > 0 && os.Getenv("BUILDX_METADATA_WARNINGS") == "1" {
			all["buildx.build.warnings"] = w.show.warnings
		}
		if err := writeMetadata(o.metadata, all); err != nil {
			return err
		}
	}
	code, err := 0, error(nil)
	if a.call.Name != "" && a.call.Format == "json" {
		code, err = w.calledJSON(d.Out(), a)
	} else {
		code, err = w.called(d.Out(), a)
	}
	if err == nil && code != 0 {
		err = cli.StatusError{StatusCode: code}
	}
	return err
}

// called prints what --call, or a target's own call, found, one target after the other, and gives the exit code.
func (w *wave) called(out io.Writer, a asked) (code int, err error) {
	first := true
	for _, n := range a.names {
		t := w.turns[n]
		if t.spec.Call.Name == "" {
			continue
		}
		if !first {
			fmt.Fprintln(out)
		}
		first = false
		fmt.Fprintln(out, n)
		if text := a.targets[n].Description; text != "" {
			fmt.Fprintln(out, text)
		}
		fmt.Fprintln(out)
		failed, err := t.printCalled(out, a.call)
		if err != nil {
			return 0, err
		}
		if failed.Status != "" {
			fmt.Fprintln(out, "error: "+strings.TrimPrefix(failed.Status, "ERROR: "))
		}
		code = max(code, failed.StatusCode)
	}
	return code, nil
}

// calledJSON prints the same as one object, with what was asked.
func (w *wave) calledJSON(out io.Writer, a asked) (code int, err error) {
	found := map[string]map[string]any{}
	for _, n := range a.names {
		found[n] = map[string]any{"build": a.targets[n]}
		t := w.turns[n]
		if t.spec.Call.Name == "" {
			continue
		}
		var text bytes.Buffer
		failed, err := t.printCalled(&text, a.call)
		if err != nil {
			return 0, err
		}
		result := map[string]json.RawMessage{}
		if err := json.Unmarshal(text.Bytes(), &result); err != nil {
			result[t.spec.Call.Name], _ = json.Marshal(text.String()) // texts can be written
		}
		if failed.Status != "" {
			result["error"], _ = json.Marshal(strings.TrimPrefix(failed.Status, "ERROR: "))
		}
		name := t.spec.Call.Name
		if name == "lint" {
			name = "check"
		}
		found[n][name] = result
		code = max(code, failed.StatusCode)
	}
	return code, printJSON(out, struct {
		Group  map[string]*bake.Group    `json:"group,omitempty"`
		Target map[string]map[string]any `json:"target"`
	}{a.groups, found})
}

// printCalled prints what was found about one target. What it gives has the exit code that this means, and why.
func (t *waveTurn) printCalled(out io.Writer, call request.Call) (failed cli.StatusError, err error) {
	if call.Name != "" {
		t.spec.Call.Format, t.spec.Call.IgnoreStatus = call.Format, call.IgnoreStatus
	}
	err = printCalled(out, t.spec, t.request, t.answer.called)
	if errors.As(err, &failed) {
		err = nil
	}
	return failed, err
}

func printJSON(out io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, string(text))
	return err
}

// printList is --list: targets or variables, or type=WHAT,format=json.
func printList(d *command.DockerCli, c *bake.Config, text string) error {
	kind, format := text, "table"
	if strings.ContainsAny(text, "=,") {
		kind = ""
		for field := range strings.SplitSeq(text, ",") {
			switch k, v, ok := strings.Cut(field, "="); {
			case !ok:
				return fmt.Errorf("invalid value %s", field)
			case k == "type":
				kind = v
			case k == "format":
				format = v
			default:
				return fmt.Errorf("unexpected key %q in %q", k, text)
			}
		}
	}
	if format != "table" && format != "json" {
		return fmt.Errorf("invalid list format %q", format)
	}
	switch kind {
	case "targets":
		return printTargets(d.Out(), c, format == "json")
	case "variables":
		return printVariables(d.Out(), c, format == "json")
	}
	return fmt.Errorf("invalid list type %q", kind)
}

// printTargets lists targets and groups by name. Those whose names begin with an underscore are there for others to inherit, and are not shown.
func printTargets(out io.Writer, c *bake.Config, asJSON bool) error {
	type row struct {
		Name        string `json:"name"`
		Description string `json:"description,omitempty"`
		Group       bool   `json:"group,omitempty"`
	}
	rows := []row{}
	for _, t := range c.Targets {
		rows = append(rows, row{t.Name, t.Description, false})
	}
	for _, g := range c.Groups {
		text := strings.Join(slices.Sorted(slices.Values(g.Targets)), ", ")
		if g.Description != "" && text != "" {
			text = "(" + text + ")"
		}
		rows = append(rows, row{g.Name, strings.TrimSpace(g.Description + " " + text), true})
	}
	rows = slices.DeleteFunc(rows, func(r row) bool { return strings.HasPrefix(r.Name, "_") })
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.Name, b.Name) })
	if asJSON {
		return printJSON(out, rows)
	}
	w := tabwriter.NewWriter(out, 1, 8, 1, '\t', 0)
	fmt.Fprintln(w, "TARGET\tDESCRIPTION")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\n", r.Name, r.Description)
	}
	return w.Flush()
}

func printVariables(out io.Writer, c *bake.Config, asJSON bool) error {
	rows := slices.Clone(c.Variables)
	slices.SortFunc(rows, func(a, b bake.Variable) int { return strings.Compare(a.Name, b.Name) })
	if asJSON {
		return printJSON(out, rows)
	}
	w := tabwriter.NewWriter(out, 1, 8, 1, '\t', 0)
	fmt.Fprintln(w, "VARIABLE\tTYPE\tVALUE\tDESCRIPTION")
	for _, v := range rows {
		text := "<null>"
		if v.Value != nil {
			text = *v.Value
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", v.Name, v.Type, text, v.Description)
	}
	return w.Flush()
}
