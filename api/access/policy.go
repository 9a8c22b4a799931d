package access

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/base/fault"
)

// Verb is a class of requests that a policy allows or not.
type Verb string

// The verbs. Every route belongs to one of them; Ping is allowed on every socket.
const (
	Ping   Verb = "ping"   // is somebody there, and which version
	Read   Verb = "read"   // list, inspect, events, figures
	Logs   Verb = "logs"   // what containers have written to stdout and stderr
	Files  Verb = "files"  // read files out of containers, volumes and images
	Create Verb = "create" // make and change containers, volumes and networks
	Start  Verb = "start"  // start, unpause
	Stop   Verb = "stop"   // stop, restart, kill, pause
	Exec   Verb = "exec"   // exec, attach, write files into containers
	Remove Verb = "remove" // remove and prune containers, volumes and networks
	Image  Verb = "image"  // pull, push, load, tag and remove images, log in to registries
	Build  Verb = "build"  // build images
	Admin  Verb = "admin"  // the engine itself: plugins, cluster, shutdown, firewall rules, these sockets
)

// Verbs lists what can be given; Ping need not be.
func Verbs() []Verb {
	return []Verb{Read, Logs, Files, Create, Start, Stop, Exec, Remove, Image, Build, Admin}
}

// ReadOnly is what --read-only means.
func ReadOnly() []Verb { return []Verb{Read, Logs} }

// Reach is what a route is about.
type Reach string

// The reaches.
const (
	Anything  Reach = "anything"  // nothing of any one's, or the rooms behind the handler are narrowed to the scope
	Container Reach = "container" // the container that the path names
	Execution Reach = "exec"      // the exec that the path names, and its container
	Volume    Reach = "volume"    // the volume that the path names
	Network   Reach = "network"   // the network that the path names
	Picture   Reach = "image"     // the image that the path names: images belong to everybody
	Closed    Reach = "closed"    // what is everybody's: not on a socket with a scope
)

// Rule is what a route is to policies.
type Rule struct {
	Verb  Verb
	Reach Reach
}

// Lift is a danger that access sockets refuse unless their policy allows it by name.
type Lift string

// The lifts.
const (
	LiftBind        Lift = "bind"           // mount any directory of the host; Policy.Binds allows single ones instead
	LiftPrivileged  Lift = "privileged"     // privileged containers and execs
	LiftDevice      Lift = "device"         // devices of the host, and rules about them
	LiftHost        Lift = "host-namespace" // the host's network, process, IPC, UTS, user or cgroup namespace
	LiftCapability  Lift = "cap-add"        // more capabilities than the default ones
	LiftSecurity    Lift = "security-opt"   // other security options than no-new-privileges; unmasked paths
	LiftSocket      Lift = "engine-socket"  // mount a socket of the engine, or a directory that holds one
	LiftRuntime     Lift = "runtime"        // another runtime than the engine's default
	LiftVolume      Lift = "volume-driver"  // volumes of other drivers than local; options of local volumes are a matter of bind
	LiftNetwork     Lift = "network-driver" // networks of other drivers than bridge, and options that name the host's interfaces
	LiftCgroup      Lift = "cgroup-parent"  // another parent cgroup, real-time budgets, a negative OOM score
	LiftLogging     Lift = "log-driver"     // drivers that send what is logged elsewhere
	LiftAnnotations Lift = "annotation"     // annotations, which runtimes and drivers may act upon
)

// Lifts lists them all.
func Lifts() []Lift {
	return []Lift{LiftBind, LiftPrivileged, LiftDevice, LiftHost, LiftCapability, LiftSecurity, LiftSocket, LiftRuntime, LiftVolume, LiftNetwork, LiftCgroup, LiftLogging, LiftAnnotations}
}

// Policy is what one access socket allows. The zero value allows nothing but pings. It travels as JSON: in DATA-ROOT/access, in
// daemon.json, and over the API.
type Policy struct {
	Name  string `json:"name"`            // letters, digits, "_", ".", "-"
	Verbs []Verb `json:"verbs,omitempty"` // what clients may do; ReadOnly is short for read and logs

	ReadOnly bool   `json:"readOnly,omitempty"`
	Label    string `json:"label,omitempty"`   // the scope: "K=V", or "K" for the things of K whatever its value; "": everything
	Project  string `json:"project,omitempty"` // the scope of one compose project, instead of Label

	Allow   []Lift   `json:"allow,omitempty"`   // what is refused otherwise
	Binds   []string `json:"binds,omitempty"`   // paths of the host that may be mounted: exactly these, not what is beneath
	NoBind  bool     `json:"noBind,omitempty"`  // says that nothing of the host may be mounted, which is so unless Allow or Binds says otherwise
	HideEnv bool     `json:"hideEnv,omitempty"` // the values of environment variables are not shown

	Created time.Time `json:"created,omitzero"`
	Expires time.Time `json:"expires,omitzero"` // the socket goes then; zero: never

	User  string `json:"user,omitempty"`  // owner of the socket, a name or a number; "" root
	Group string `json:"group,omitempty"` // its group; "" root's
	Mode  string `json:"mode,omitempty"`  // its permissions, octal; "" 0660 with a group, else 0600
}

// ProjectLabel is what compose puts on everything of a project.
const ProjectLabel = "com.docker.compose.project"

// Check refuses a policy that contradicts itself or that names what there is not.
func (p *Policy) Check() error {
	if !validName(p.Name) {
		return fault.New(fault.Invalid, "access: the name %q must be made of letters, digits, \"_\", \".\" and \"-\", 64 at most, and begin with a letter or digit", p.Name)
	}
	for _, v := range p.Verbs {
		if !slices.Contains(Verbs(), v) {
			return fault.New(fault.Invalid, "access %q: there is no verb %q; there are %s", p.Name, v, join(Verbs()))
		}
	}
	for _, l := range p.Allow {
		if !slices.Contains(Lifts(), l) {
			return fault.New(fault.Invalid, "access %q: %q cannot be allowed; what can is %s", p.Name, l, join(Lifts()))
		}
	}
	for _, b := range p.Binds {
		if !strings.HasPrefix(b, "/") || b != cleanHost(b) {
			return fault.New(fault.Invalid, "access %q: %q must be an absolute path without \"..\" or doubled slashes", p.Name, b)
		}
	}
	key, _, _ := strings.Cut(p.Label, "=")
	switch {
	case p.ReadOnly && len(p.Verbs) > 0:
		return fault.New(fault.Invalid, "access %q: --read-only and --verbs say the same in two ways; give one", p.Name)
	case !p.ReadOnly && len(p.Verbs) == 0:
		return fault.New(fault.Invalid, "access %q: say what may be done: --read-only or --verbs", p.Name)
	case p.Label != "" && p.Project != "":
		return fault.New(fault.Invalid, "access %q: --project is a label: give one of --label and --project", p.Name)
	case slices.Contains(eventAttributes, key):
		return fault.New(fault.Invalid, "access %q: the label %q cannot be told from what events tell of containers; choose another", p.Name, key)
	case p.Label != "" && key == "":
		return fault.New(fault.Invalid, "access %q: the label %q has no name", p.Name, p.Label)
	case p.NoBind && (len(p.Binds) > 0 || p.lifts(LiftBind)):
		return fault.New(fault.Invalid, "access %q: --no-bind contradicts what is allowed to be mounted", p.Name)
	case p.Scoped() && p.lifts(LiftSocket):
		return fault.New(fault.Invalid, "access %q: who may mount the engine's socket is in no scope", p.Name)
	}
	if _, err := p.mode(); err != nil {
		return err
	}
	return nil
}

// eventAttributes stand beside labels in events, so that a scope by a label of the same name would see others' events.
var eventAttributes = []string{
	"name", "image", "exitCode", "execDuration", "execID", "signal", "oldName", "container", "comment", "driver", "type", "destination", "propagation", "read/write", "imageID",
	"imageRef", "reclaimed", "detachKeys",
}

func validName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || r != '_' && r != '.' && r != '-') {
			return false
		}
	}
	return true
}

// Expired tells whether the policy's time is over.
func (p *Policy) Expired(now time.Time) bool { return !p.Expires.IsZero() && !now.Before(p.Expires) }

// Scoped tells whether clients see a part of the things only.
func (p *Policy) Scoped() bool { return p.Label != "" || p.Project != "" }

// scope gives the label's name and value; any: the value does not matter.
func (p *Policy) scope() (key, value string, any bool) {
	if p.Project != "" {
		return ProjectLabel, p.Project, false
	}
	key, value, pair := strings.Cut(p.Label, "=")
	return key, value, !pair
}

// Sees tells whether something with these labels is in the scope.
func (p *Policy) Sees(labels map[string]string) bool {
	if !p.Scoped() {
		return true
	}
	key, value, any := p.scope()
	got, there := labels[key]
	return there && (any || got == value)
}

// Mark gives the labels that something new must have: those asked for and the scope's. One that contradicts the scope is refused.
func (p *Policy) Mark(labels map[string]string) (map[string]string, error) {
	if !p.Scoped() || p.Sees(labels) {
		return labels, nil
	}
	key, value, any := p.scope()
	if got, there := labels[key]; there {
		return nil, p.deny("a label %s=%s is outside its scope %s", key, got, p.ScopeText())
	}
	if any {
		value = p.Name
	}
	out := map[string]string{key: value}
	for k, v := range labels {
		out[k] = v
	}
	return out, nil
}

// verbs gives what is allowed.
func (p *Policy) verbs() []Verb {
	if p.ReadOnly {
		return ReadOnly()
	}
	return p.Verbs
}

func (p *Policy) lifts(l Lift) bool { return slices.Contains(p.Allow, l) }

// Admit decides about a request by its route alone. method and path are for the answer.
func (p *Policy) Admit(method, path string, r Rule) error {
	switch {
	case r.Verb == Ping:
		return nil
	case r.Verb == "" || r.Reach == "": // a route of nobody's
		return p.deny("%s %s has no verb that could be allowed", method, path)
	case !slices.Contains(p.verbs(), r.Verb):
		return p.deny("%s %s needs the verb %q, and this socket allows %s", method, path, r.Verb, join(p.verbs()))
	case r.Reach == Closed && p.Scoped():
		return p.deny("%s %s concerns everybody on this engine, and this socket's scope is %s", method, path, p.ScopeText())
	}
	return nil
}

// deny is a refusal: 403 with the rule's name.
func (p *Policy) deny(format string, args ...any) error {
	return fault.New(fault.Forbidden, "access %q: %s", p.Name, fmt.Sprintf(format, args...))
}

// ScopeText is the scope in words.
func (p *Policy) ScopeText() string {
	switch {
	case p.Project != "":
		return "project " + p.Project
	case p.Label != "":
		return "label " + p.Label
	}
	return "everything"
}

// String prints the policy in one line, as `access ls` does in columns.
func (p *Policy) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s on %s", p.Name, join(p.verbs()), p.ScopeText())
	if len(p.Allow) > 0 {
		fmt.Fprintf(&b, "; allows %s", join(p.Allow))
	}
	if len(p.Binds) > 0 {
		fmt.Fprintf(&b, "; mounts of %s", strings.Join(p.Binds, ", "))
	}
	if p.HideEnv {
		b.WriteString("; environment hidden")
	}
	if !p.Expires.IsZero() {
		fmt.Fprintf(&b, "; until %s", p.Expires.UTC().Format(time.RFC3339))
	}
	return b.String()
}

// join lists words.
func join[T ~string](words []T) string {
	if len(words) == 0 {
		return "nothing"
	}
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	return strings.Join(out, ", ")
}

// Selector is the scope as a filter by label, "K" or "K=V".
func (p *Policy) Selector() string {
	key, value, any := p.scope()
	if any {
		return key
	}
	return key + "=" + value
}
