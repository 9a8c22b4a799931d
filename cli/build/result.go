package build

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/debug"
	"github.com/docker/cli/cli/streams"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/subrequests"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	solvererrors "github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/moby/sys/atomicwriter"
	"github.com/morikuni/aec"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"berth/cli/build/expand"
	"berth/cli/build/request"
)

// report prints and writes what a build gave.
func (o *options) report(ctx context.Context, d *command.DockerCli, c *conn, r *request.Request, spec *request.Spec, a *answer, mode progressui.DisplayMode) error {
	printWarnings(d.Err(), a.warnings, mode, r)
	id := imageID(a.exporter)
	if o.quiet && spec.Call.Name == "" && !o.plan {
		fmt.Fprintln(d.Out(), id)
	}
	if o.plan {
		fmt.Fprint(d.Out(), a.exporter[planAttr])
		return nil
	}
	if o.iidfile != "" {
		if err := os.WriteFile(o.iidfile, []byte(id), 0o644); err != nil {
			return fmt.Errorf("writing image ID file: %w", err)
		}
	}
	if o.metadata != "" {
		values := a.exporter
		if spec.Call.Name != "" {
			values = a.called
		}
		m := metadata(values)
		if spec.Call.Name == "" {
			addRecord(ctx, d, c, a, m)
		}
		if err := writeMetadata(o.metadata, m); err != nil {
			return err
		}
	}
	if spec.Call.Name != "" {
		return printCalled(d.Out(), spec, r, a.called)
	}
	if text, ok := a.exporter["frontend.result.inlinemessage"]; ok {
		fmt.Fprintf(d.Out(), "\n%s\n", text)
	}
	return nil
}

// imageID is the id that the engine knows the image by.
func imageID(exporter map[string]string) string {
	if id, ok := exporter[exptypes.ExporterImageConfigDigestKey]; ok {
		return id
	}
	return exporter[exptypes.ExporterImageDigestKey]
}

// metadata makes values ready for JSON: what is an object, plain or in base64, is one in the file too.
func metadata(values map[string]string) map[string]any {
	m := map[string]any{}
	for k, v := range values {
		m[k] = v
		text := []byte(v)
		if k != "result.json" {
			var err error
			if text, err = base64.StdEncoding.DecodeString(v); err != nil {
				continue
			}
		}
		var object map[string]any
		var list []map[string]any
		if json.Unmarshal(text, &object) == nil && len(object) > 0 || json.Unmarshal(text, &list) == nil && len(list) > 0 {
			m[k] = json.RawMessage(text)
		}
	}
	return m
}

func writeMetadata(path string, m any) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return atomicwriter.WriteFile(path, text, 0o644)
}

// printWarnings lists what the frontend found fault with; with --debug in full.
func printWarnings(w io.Writer, warnings []client.VertexWarning, mode progressui.DisplayMode, rs ...*request.Request) {
	if len(warnings) == 0 || mode == progressui.QuietMode || mode == progressui.RawJSONMode {
		return
	}
	head := "1 warning found"
	if len(warnings) > 1 {
		head = fmt.Sprintf("%d warnings found", len(warnings))
	}
	full := debug.IsEnabled()
	if !full {
		head += " (use " + programName() + " --debug to expand)"
	}
	head += ":\n"
	if o, ok := w.(*streams.Out); ok && o.IsTerminal() {
		head = aec.Apply(head, aec.YellowF)
	}
	fmt.Fprint(w, "\n "+head)
	for _, warning := range warnings {
		fmt.Fprintf(w, " - %s\n", warning.Short)
		if !full {
			continue
		}
		for _, l := range warning.Detail {
			fmt.Fprintf(w, "%s\n", l)
		}
		if warning.URL != "" {
			fmt.Fprintf(w, "More info: %s\n", warning.URL)
		}
		if warning.SourceInfo != nil && warning.Range != nil {
			_ = original(&solvererrors.Source{Info: warning.SourceInfo, Ranges: warning.Range}, rs...).Print(w)
		}
		fmt.Fprintln(w)
	}
}

// programName is what the user has typed: we may be called docker.
func programName() string {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "docker") {
		return "docker"
	}
	return "berth"
}

// original leads a place in the Dockerfile that one of rs sent back to the one that was written.
func original(src *solvererrors.Source, rs ...*request.Request) *solvererrors.Source {
	for _, r := range rs {
		if r == nil || r.Expanded == nil {
			continue
		}
		if o := r.Expanded.Original(src); o != src {
			return o
		}
	}
	return src
}

// failure prints the lines of the Dockerfile that err is about, and gives the error with the words and the exit code of docker build.
func failure(d *command.DockerCli, err error, r *request.Request) error {
	var status cli.StatusError
	if err == nil || errors.As(err, &status) {
		return err
	}
	for _, src := range solvererrors.Sources(err) {
		_ = original(src, r).Print(d.Err())
	}
	var at *expand.Error
	if errors.As(err, &at) {
		_ = at.Source().Print(d.Err())
	}
	code := 1
	switch grpcerrors.Code(err) {
	case codes.Internal:
		code = 100
	case codes.ResourceExhausted:
		code = 102
	case codes.Canceled:
		code = 130
	default:
		if isCanceled(err) {
			code = 130
		}
	}
	text := err.Error()
	if st, ok := grpcerrors.AsGRPCStatus(err); ok && st.Code() == codes.Unimplemented {
		text = plainer(st.Message(), text)
	}
	return cli.StatusError{Cause: err, Status: "ERROR: " + text, StatusCode: code}
}

// isCanceled reports whether somebody gave up, here or there.
func isCanceled(err error) bool {
	return errors.Is(err, context.Canceled) || grpcerrors.Code(err) == codes.Canceled
}

// plainer says what an old frontend means when it lacks something that was asked of it.
func plainer(message, text string) string {
	for capability, words := range map[string]string{
		"moby.buildkit.frontend.contexts":       "current frontend does not support --build-context. Named contexts are supported since Dockerfile v1.4. Use #syntax directive in Dockerfile or update to latest BuildKit.",
		"moby.buildkit.frontend.gitquerystring": "current frontend does not support Git URLs with query string components. Git URLs with query string are supported since Dockerfile v1.18 and BuildKit v0.24. Use BUILDKIT_SYNTAX build-arg, #syntax directive in Dockerfile or update to latest BuildKit.",
	} {
		if bytes.Contains([]byte(message), []byte("unsupported frontend capability "+capability)) {
			return words
		}
	}
	return text
}

// printCalled prints what --call found. The answer's own exit code is the program's.
func printCalled(w io.Writer, spec *request.Spec, r *request.Request, values map[string]string) error {
	call := spec.Call
	print := func(version string, printer func([]byte, io.Writer) error) error {
		switch {
		case call.Format == "json":
			fmt.Fprintln(w, values["result.json"])
			return nil
		case newer(values["version"], version) && values["result.txt"] != "":
			fmt.Fprint(w, values["result.txt"])
			return nil
		}
		return printer([]byte(values["result.json"]), w)
	}
	var err error
	switch call.Name {
	case "outline":
		return print(outline.SubrequestsOutlineDefinition.Version, outline.PrintOutline)
	case "targets":
		return print(targets.SubrequestsTargetsDefinition.Version, targets.PrintTargets)
	case "subrequests.describe":
		return print(subrequests.SubrequestsDescribeDefinition.Version, subrequests.PrintDescribe)
	case "lint":
		err = printLint(w, call, r, values, print)
	default:
		switch {
		case values["result.json"] != "" && call.Format == "json":
			fmt.Fprintln(w, values["result.json"])
		case values["result.txt"] != "":
			fmt.Fprint(w, values["result.txt"])
		default:
			fmt.Fprintf(w, "%s %+v\n", call.Name, values)
		}
	}
	if err != nil {
		return err
	}
	if code, _ := strconv.Atoi(values["result.statuscode"]); code != 0 && !call.IgnoreStatus {
		return cli.StatusError{StatusCode: code}
	}
	return nil
}

func printLint(w io.Writer, call request.Call, r *request.Request, values map[string]string, print func(string, func([]byte, io.Writer) error) error) error {
	var found lint.LintResults
	if text := values["result.json"]; text != "" {
		if err := json.Unmarshal([]byte(text), &found); err != nil {
			return err
		}
	}
	asJSON := call.Format == "json"
	if r.Expanded != nil {
		lintOriginal(&found, r.Expanded)
		text, err := json.MarshalIndent(found, "", "  ")
		if err != nil {
			return err
		}
		values["result.json"] = string(text)
	}
	if n := len(found.Warnings); n > 0 && !asJSON {
		words := "1 warning has been found!"
		if n > 1 {
			words = fmt.Sprintf("%d warnings have been found!", n)
		}
		fmt.Fprintf(w, "Check complete, %s\n", words)
	}
	named := func(info *pb.SourceInfo) *pb.SourceInfo {
		if info == nil || r.Name == "" {
			return info
		}
		info = proto.Clone(info).(*pb.SourceInfo)
		info.Filename = r.Name
		return info
	}
	err := print(lint.SubrequestLintDefinition.Version, func(_ []byte, w io.Writer) error { return found.PrintTo(w, named) })
	if err != nil {
		return err
	}
	if found.Error != nil {
		if !asJSON && len(found.Warnings) > 0 {
			fmt.Fprintln(w)
		}
		var b bytes.Buffer
		found.PrintErrorTo(&b, named)
		return cli.StatusError{Status: "ERROR: " + b.String(), StatusCode: 1}
	}
	if len(found.Warnings) == 0 && !asJSON {
		fmt.Fprintln(w, "Check complete, no warnings found.")
	}
	return nil
}

// lintOriginal leads the places of what was found back to the files that somebody wrote.
func lintOriginal(found *lint.LintResults, e *expand.Result) {
	lead := func(l *pb.Location) {
		if l == nil || int(l.SourceIndex) >= len(found.Sources) {
			return
		}
		src := &solvererrors.Source{Info: found.Sources[l.SourceIndex], Ranges: l.Ranges}
		if o := e.Original(src); o != src {
			found.Sources = append(found.Sources, o.Info)
			l.SourceIndex, l.Ranges = int32(len(found.Sources)-1), o.Ranges
		}
	}
	for i := range found.Warnings {
		lead(found.Warnings[i].Location)
	}
	if found.Error != nil {
		lead(&found.Error.Location)
	}
}

// newer compares dotted versions.
func newer(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		var m, n int
		if i < len(x) {
			m, _ = strconv.Atoi(x[i])
		}
		if i < len(y) {
			n, _ = strconv.Atoi(y[i])
		}
		if m != n {
			return m > n
		}
	}
	return false
}
