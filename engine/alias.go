package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/engine/container"
	"berth/network"
)

// A link (docker run --link TARGET:ALIAS) of the default network gives its target a further name, PARENT/ALIAS, by which clients may ask
// for it and which they may take away. Links of other networks belong to their endpoints.

// splitLink takes a link apart: "db:mysql", or "db" alone.
func splitLink(link string) (target, alias string) {
	target, alias, ok := strings.Cut(link, ":")
	target = strings.TrimPrefix(target, "/")
	if !ok {
		alias = target
	}
	return target, alias[strings.LastIndex(alias, "/")+1:]
}

// byLink gives the parent and the link that a name stands for; nil where there is none.
func (x *index) byLink(ref string) (parent *entry, link string) {
	name, alias, ok := strings.Cut(strings.TrimPrefix(ref, "/"), "/")
	if !ok {
		return nil, ""
	}
	parent, err := x.findOne(name)
	if err != nil {
		return nil, ""
	}
	for _, l := range parent.record().Spec.Network.Links {
		if _, a := splitLink(l); a == alias {
			return parent, l
		}
	}
	return nil, ""
}

// linkNames gives the further names of all containers, by id.
func (e *Engine) linkNames() map[string][]string {
	names := map[string][]string{}
	e.index.each(func(c *entry) {
		r := c.record()
		for _, l := range r.Spec.Network.Links {
			target, alias := splitLink(l)
			if t, err := e.index.findOne(target); err == nil {
				names[t.id] = append(names[t.id], r.Name+"/"+alias)
			}
		}
	})
	for _, n := range names {
		slices.Sort(n)
	}
	return names
}

// linkEnv gives the variables that tell a container of the ones it is linked with, as Docker names them: DB_PORT, DB_PORT_5432_TCP_ADDR,
// DB_NAME, DB_ENV_… A container that cannot be found any more has none; a start refuses it.
func (e *Engine) linkEnv(r *container.Record, own network.Sandbox) (env []string) {
	for _, l := range r.Spec.Network.Links {
		target, alias := splitLink(l)
		c, err := e.index.find(target)
		if err != nil {
			continue
		}
		i := c.snapshot()
		for _, p := range i.Sandbox.Endpoints {
			if p.IPv4.IsValid() && slices.ContainsFunc(own.Endpoints, func(o network.Endpoint) bool { return o.NetworkID == p.NetworkID }) {
				env = append(env, linkVariables("/"+r.Name+"/"+alias, p.IPv4.Addr().String(), i.Spec.ExposedPorts, i.Spec.Process.Env)...)
				break
			}
		}
	}
	return env
}

// linkedPort is a port that a target's configuration names.
type linkedPort struct {
	number uint64
	proto  string
}

func linkVariables(name, address string, exposed, targetEnv []string) (env []string) {
	alias := strings.ReplaceAll(strings.ToUpper(name[strings.LastIndex(name, "/")+1:]), "-", "_")
	var ports []linkedPort
	for _, text := range exposed {
		number, proto, _ := strings.Cut(text, "/")
		if n, err := strconv.ParseUint(number, 10, 16); err == nil {
			ports = append(ports, linkedPort{n, cmp.Or(proto, "tcp")})
		}
	}
	slices.SortFunc(ports, func(a, b linkedPort) int { // by number; of one number TCP first
		return cmp.Or(cmp.Compare(a.number, b.number), strings.Compare(a.proto, b.proto))
	})
	for i, p := range ports {
		url := fmt.Sprintf("%s://%s:%d", p.proto, address, p.number)
		if i == 0 {
			env = append(env, alias+"_PORT="+url)
		}
		prefix := fmt.Sprintf("%s_PORT_%d_%s", alias, p.number, strings.ToUpper(p.proto))
		env = append(env, prefix+"="+url, prefix+"_ADDR="+address, fmt.Sprintf("%s_PORT=%d", prefix, p.number), prefix+"_PROTO="+p.proto)
	}
	env = append(env, alias+"_NAME="+name)
	for _, kv := range targetEnv {
		key, value, ok := strings.Cut(kv, "=")
		if ok && key != "HOME" && key != "PATH" {
			env = append(env, alias+"_ENV_"+key+"="+value)
		}
	}
	return env
}

// removeLink takes a link away: the name, and what /etc/hosts of the parent says of it.
func (e *Engine) removeLink(ctx context.Context, ref string) error {
	parent, link := e.index.byLink(ref)
	if parent == nil {
		return fault.New(fault.Invalid, "Conflict, cannot remove the default link name of the container")
	}
	end, err := parent.begin(ctx, "remove link")
	if err != nil {
		return err
	}
	defer end()
	if err := parent.mayChange("remove a link of"); err != nil {
		return err
	}
	r := *parent.record()
	s := *r.Spec
	s.Network.Links = slices.DeleteFunc(slices.Clone(s.Network.Links), func(l string) bool { return l == link })
	r.Spec = &s
	if err := e.store.Write(&r); err != nil {
		return err
	}
	parent.setRecord(&r)
	if i := parent.snapshot(); i.State.Status.Alive() && !s.Network.IsContainer() {
		return e.writeEtc(&r, i.Sandbox)
	}
	return nil
}
