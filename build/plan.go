package build

import (
	"context"
	"encoding/json"
	"strings"

	"berth/build/frontend"
	"berth/build/solver"
)

// planAttr is the frontend attribute that asks for a plan instead of a build, and the key of the answer: text or json.
const planAttr = "berth.plan"

// plan tells what building would do, and why, platform by platform.
func (j *job) plan(ctx context.Context, form string) (*Response, error) {
	plans := map[string]*solver.Plan{}
	var order []string
	err := j.eachPlatform(func(id string, ref *frontend.Reference) error {
		if ref == nil {
			return nil
		}
		p, err := j.build.Plan(ctx, ref.Definition())
		plans[id] = p
		order = append(order, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	if form == "json" {
		if err := json.NewEncoder(&text).Encode(planJSON(order, plans)); err != nil {
			return nil, err
		}
	} else {
		for _, id := range order {
			if len(order) > 1 {
				text.WriteString(id + ":\n")
			}
			text.WriteString(plans[id].String())
		}
	}
	return &Response{ID: j.req.ID, Exported: map[string]string{planAttr: text.String()}}, nil
}

// plannedPlatform and plannedStep are the form of a plan in JSON.
type plannedPlatform struct {
	Platform string        `json:"platform"`
	Steps    []plannedStep `json:"steps"`
}

type plannedStep struct {
	Digest string `json:"digest"`
	Name   string `json:"name"`
	State  string `json:"state"`
	Why    string `json:"why,omitempty"`
}

func planJSON(order []string, plans map[string]*solver.Plan) []plannedPlatform {
	var list []plannedPlatform
	for _, id := range order {
		p := plannedPlatform{Platform: id, Steps: []plannedStep{}}
		for _, s := range plans[id].Steps {
			p.Steps = append(p.Steps, plannedStep{Digest: s.Vertex.Digest.String(), Name: s.Vertex.Name, State: s.State, Why: s.Why})
		}
		list = append(list, p)
	}
	return list
}
