package buildkit_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
)

// What a frontend says of sources with its own requests holds for these, for names that it resolves, and for the frontends that it calls.
func TestPoliciesOfAFrontend(t *testing.T) {
	b := newBench(t)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "text of "+r.URL.Path)
	}))
	defer web.Close()
	policy := func(rules ...*spb.Rule) []*spb.Policy { return []*spb.Policy{{Rules: rules}} }
	deny := policy(&spb.Rule{Action: spb.PolicyAction_DENY, Selector: &spb.Selector{Identifier: web.URL + "/a"}})
	convert := policy(&spb.Rule{Action: spb.PolicyAction_CONVERT, Selector: &spb.Selector{Identifier: web.URL + "/a"}, Updates: &spb.Update{Identifier: web.URL + "/b"}})
	read := func(policies []*spb.Policy) gateway.BuildFunc {
		return func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
			def, err := llb.Scratch().File(llb.Copy(llb.HTTP(web.URL+"/a", llb.Filename("f")), "/f", "/g")).Marshal(ctx)
			if err != nil {
				return nil, err
			}
			return c.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), SourcePolicies: policies, Evaluate: true})
		}
	}
	resolve := func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		_, err := c.ResolveSourceMetadata(ctx, &pb.SourceOp{Identifier: web.URL + "/a"}, sourceresolver.Opt{SourcePolicies: deny})
		return gateway.NewResult(), err
	}
	nested := func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		def, err := llb.Scratch().File(llb.Mkfile("/Dockerfile", 0o644, []byte("FROM scratch\nADD "+web.URL+"/a /\n"))).Marshal(ctx)
		if err != nil {
			return nil, err
		}
		input := def.ToPB()
		return c.Solve(ctx, gateway.SolveRequest{
			Frontend: "dockerfile.v0", FrontendInputs: map[string]*pb.Definition{"dockerfile": input, "context": input}, SourcePolicies: deny, Evaluate: true,
		})
	}
	for _, c := range []struct {
		name  string
		build gateway.BuildFunc
		want  string // of the error; "": none
		text  string // of the file /g
	}{
		{"none", read(nil), "", "text of /a"},
		{"denied", read(deny), "source denied by policy", ""},
		{"another in its place", read(convert), "", "text of /b"},
		{"a name", resolve, "source denied by policy", ""},
		{"of another frontend", nested, "source denied by policy", ""},
		{"no selector", read(policy(&spb.Rule{})), "invalid nil selector in policy", ""},
		{"no destination", read(policy(&spb.Rule{Action: spb.PolicyAction_CONVERT, Selector: &spb.Selector{Identifier: web.URL + "/a"}})), "missing destination", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var text string
			_, err := b.client.Build(t.Context(), client.SolveOpt{}, "", func(ctx context.Context, gw gateway.Client) (*gateway.Result, error) {
				res, err := c.build(ctx, gw)
				if err == nil && c.text != "" {
					data, rerr := res.Ref.ReadFile(ctx, gateway.ReadRequest{Filename: "/g"})
					text, err = string(data), rerr
				}
				return res, err
			}, nil)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
			if text != c.text {
				t.Errorf("%q, want %q", text, c.text)
			}
		})
	}
}
