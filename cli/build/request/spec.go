package request

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/cli/opts"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/util/entitlements"
)

// localDelete is the permission to empty directories of the client outside of its working directory. It concerns nobody else.
const localDelete = "buildx.local.delete"

// A Spec is one build as it was asked for.
type Spec struct {
	Context          string            // a directory, URL, or "-" for what comes on the standard input
	Dockerfile       string            // its path, URL, or "-"; "" is Dockerfile in the context
	DockerfileInline string            // its text, instead
	Contexts         map[string]string // named contexts, by name

	// Where contexts are what steps make, and not places. The Dockerfile is then of the context.
	ContextState  *llb.State
	ContextStates map[string]llb.State

	Args          map[string]string
	Labels        map[string]string
	Tags          []string
	Target        string
	Platforms     []string
	Annotations   []string
	Attests       []Attest
	Secrets       []Secret
	SSH           []SSH
	Outputs       []Output
	Push, Load    bool
	CacheFrom     []Cache
	CacheTo       []Cache
	NoCache       bool
	NoCacheFilter []string
	Pull          bool
	Squash        bool // one layer for all that the Dockerfile adds

	Network      string
	ExtraHosts   []string
	ShmSize      int64 // bytes; 0 is the engine's choice
	Ulimits      []string
	CgroupParent string
	Resources    []string // KEY=VALUE with the names of docker run's flags: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems
	Allow        []string

	NoPolicy bool // a source policy beside the Dockerfile is not minded; else it is a refusal, since nobody here evaluates it

	Call   Call
	Expand bool // the Dockerfile has INCLUDE, IF and FOR, whatever its first line says
}

func (s *Spec) allowsDelete() bool { return slices.Contains(s.Allow, localDelete) }

// entitlements are what the engine is asked to permit.
func (s *Spec) entitlements() ([]string, error) {
	var all []string
	for _, v := range s.Allow {
		if name, _, has := strings.Cut(v, "="); name == localDelete {
			if has {
				return nil, fmt.Errorf("%s does not accept a value", localDelete)
			}
			continue
		}
		if v == "" {
			continue
		}
		if _, _, err := entitlements.Parse(v); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// platformList is the wire's list of platforms; "local" is this machine's.
func platformList(values []string) (string, int, error) {
	var all []string
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			p := platforms.DefaultSpec()
			if !strings.EqualFold(name, "local") {
				var err error
				if p, err = platforms.Parse(name); err != nil {
					return "", 0, err
				}
			}
			all = append(all, platforms.FormatAll(platforms.Normalize(p)))
		}
	}
	return strings.Join(all, ","), len(all), nil
}

// tagList is the wire's list of image names.
func tagList(tags []string) (string, error) {
	var all []string
	for _, t := range tags {
		ref, err := reference.Parse(t)
		if err != nil {
			return "", fmt.Errorf("invalid tag %q: %w", t, err)
		}
		all = append(all, ref.String())
	}
	return strings.Join(all, ","), nil
}

// hostGateway stands for the host's address as containers see it.
const hostGateway = "host-gateway"

// hostList is the wire's list of extra hosts. gateway gives the address for host-gateway.
func hostList(hosts []string, gateway func() (string, error)) (string, error) {
	var all []string
	for _, h := range hosts {
		name, addr, ok := strings.Cut(h, "=")
		if !ok {
			name, addr, ok = strings.Cut(h, ":")
		}
		if !ok || name == "" || addr == "" {
			return "", fmt.Errorf("invalid host %s", h)
		}
		if addr == hostGateway {
			ip, err := gateway()
			if err != nil {
				return "", fmt.Errorf("unable to derive the IP value for host-gateway: %w", err)
			}
			all = append(all, name+"="+ip)
			continue
		}
		for ip := range strings.SplitSeq(addr, ",") {
			if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
				ip = ip[1 : len(ip)-1]
			}
			if net.ParseIP(ip) == nil {
				return "", fmt.Errorf("invalid host %s", h)
			}
			all = append(all, name+"="+ip)
		}
	}
	return strings.Join(all, ","), nil
}

// resourceAttrs puts the limits of steps into the frontend's attributes.
func resourceAttrs(resources []string, attrs map[string]string) error {
	for _, r := range resources {
		k, v, ok := strings.Cut(r, "=")
		if !ok {
			return fmt.Errorf("invalid resource %q, expected key=value", r)
		}
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		var err error
		var text string
		switch k {
		case "memory":
			var m opts.MemBytes
			err = m.Set(v)
			text = strconv.FormatInt(m.Value(), 10)
		case "memory-swap":
			var m opts.MemSwapBytes
			err = m.Set(v)
			text = strconv.FormatInt(m.Value(), 10)
		case "cpu-shares", "cpu-period", "cpu-quota":
			_, err = strconv.ParseInt(v, 10, 64)
			text = v
		case "cpuset-cpus", "cpuset-mems":
			text = v
		default:
			return fmt.Errorf("unknown resource %q", k)
		}
		if err != nil {
			return fmt.Errorf("invalid value %q for resource %s: %w", v, k, err)
		}
		if text == "" || text == "0" {
			continue
		}
		attrs[resourceAttr(k)] = text
	}
	return nil
}

// resourceAttr is the frontend's name of a limit.
func resourceAttr(name string) string {
	if name == "memory-swap" {
		return "memswap"
	}
	return strings.ReplaceAll(name, "-", "")
}

// envBool reads a switch of the environment; unset is false.
func envBool(name string) (bool, error) {
	v, ok := os.LookupEnv(name)
	if !ok {
		return false, nil
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		return false, fmt.Errorf("invalid %s: %w", name, err)
	}
	return on, nil
}
