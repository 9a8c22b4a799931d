package selinux

import (
	"bufio"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Enabled reports whether the kernel runs with SELinux and a policy can be asked.
func Enabled() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/selinux", &st) == nil && uint32(st.Type) == unix.SELINUX_MAGIC
}

// Known reports whether the loaded policy has the label: its user, role, type and level, and that they go
// together. Only root may ask.
func Known(label string) bool {
	f, err := os.OpenFile("/sys/fs/selinux/context", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Write([]byte(label + "\x00"))
	return err == nil
}

// Labels are a container's.
type Labels struct {
	Process string // "" for a process that SELinux does not confine
	Mount   string
}

// categories is how many a policy has (mcs_num_cats of the reference policy).
const categories = 1024

// unconfinedPair marks the files of containers that are not confined: no confined container gets it.
const unconfinedPair = "c1022,c1023"

// Labeller gives containers their labels. It may be used by several goroutines.
type Labeller struct {
	process, file string // the policy's labels, with a level but no categories
	categories    int

	mu    sync.Mutex
	taken map[string]int // how many containers have a pair or level
}

// New reads the policy's labels for containers. A machine without them gives a Labeller whose labels
// are empty.
func New() *Labeller { return open("/") }

func open(root string) *Labeller {
	l := &Labeller{categories: categories, taken: map[string]int{unconfinedPair: 1}}
	contexts := lxcContexts(root)
	l.process, l.file = contexts["process"], contexts["file"]
	return l
}

// lxcContexts reads the file in which a policy says how containers are labelled: container-selinux's
// own if it is there, else that of the configured policy.
func lxcContexts(root string) map[string]string {
	if c := settings(filepath.Join(root, "usr/share/containers/selinux/contexts")); c["process"] != "" {
		return c
	}
	policy := settings(filepath.Join(root, "etc/selinux/config"))["SELINUXTYPE"]
	if policy == "" || strings.Contains(policy, "/") {
		return nil
	}
	return settings(filepath.Join(root, "etc/selinux", policy, "contexts/lxc_contexts"))
}

// settings reads lines of the form key = "value".
func settings(path string) map[string]string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	all := map[string]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		key, value, ok := strings.Cut(line, "=")
		if !ok || line[0] == '#' || line[0] == ';' {
			continue
		}
		all[strings.TrimSpace(key)] = strings.Trim(strings.TrimSpace(value), `"`)
	}
	return all
}

// CheckOptions refuses what is no option of --security-opt label=….
func CheckOptions(options []string) error {
	for _, o := range options {
		if o == "disable" {
			continue
		}
		key, value, ok := strings.Cut(o, ":")
		switch key {
		case "user", "role", "type", "level", "filetype":
			if ok && value != "" && !strings.ContainsAny(value, " \t\n\"\x00") {
				continue
			}
		}
		return fault.New(fault.Invalid, "bad label option %q, valid options 'disable' or \n'user, role, level, type, filetype' followed by ':' and a value", o)
	}
	return nil
}

// Labels makes the labels of a new container, with a pair of categories of its own unless an option
// names a level. Options are those of --security-opt label=…; "disable" leaves the processes unconfined.
// Release takes the mount label back.
func (l *Labeller) Labels(options []string) (Labels, error) {
	if err := CheckOptions(options); err != nil {
		return Labels{}, err
	}
	if l.process == "" || l.file == "" {
		return Labels{}, nil
	}
	process, err := Parse(l.process)
	if err != nil {
		return Labels{}, fault.In(err, "the policy's label for containers")
	}
	file, err := Parse(l.file)
	if err != nil {
		return Labels{}, fault.In(err, "the policy's label for containers' files")
	}
	disabled := false
	for _, o := range options {
		key, value, _ := strings.Cut(o, ":")
		switch key {
		case "disable":
			disabled = true
		case "user":
			process.User, file.User = value, value
		case "role":
			process.Role = value
		case "type":
			process.Type = value
		case "filetype":
			file.Type = value
		}
	}
	if disabled {
		plain, _ := Parse(l.file)
		if plain.Level != "" {
			plain.Level = sensitivity(plain.Level) + ":" + unconfinedPair
		}
		return Labels{Mount: plain.String()}, nil
	}
	level, err := l.level(process.Level, options)
	if err != nil {
		return Labels{}, err
	}
	if level != "" {
		process.Level, file.Level = level, level
	}
	return Labels{Process: process.String(), Mount: file.String()}, nil
}

// Shared makes the labels of processes whose files are for all containers: those of new containers, without categories. There is nothing
// to release.
func (l *Labeller) Shared() (Labels, error) {
	var options []string
	if c, err := Parse(l.process); err == nil && c.Level != "" {
		options = append(options, "level:"+sensitivity(c.Level))
	}
	return l.Labels(options)
}

// level takes the level an option names, or a new pair above the policy's level; "" under a policy
// without levels.
func (l *Labeller) level(policy string, options []string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	named := ""
	for _, o := range options {
		if v, ok := strings.CutPrefix(o, "level:"); ok {
			named = v
		}
	}
	if named != "" {
		if p := pair(named); p != "" && p != unconfinedPair {
			l.taken[p]++
		}
		return named, nil
	}
	if policy == "" {
		return "", nil
	}
	free, err := l.free()
	if err != nil {
		return "", err
	}
	l.taken[free] = 1
	return sensitivity(policy) + ":" + free, nil
}

// tries is how many random pairs are looked at before all are searched in order: with half a million
// pairs the first is free on any machine that still works.
const tries = 32

// free finds a pair that nobody has. Pairs are drawn at random, so that files which a removed container
// left somewhere do not become the next one's.
func (l *Labeller) free() (string, error) {
	for range tries {
		a, b := rand.IntN(l.categories), rand.IntN(l.categories)
		if p := pairOf(a, b); a != b && l.taken[p] == 0 {
			return p, nil
		}
	}
	for a := range l.categories {
		for b := a + 1; b < l.categories; b++ {
			if p := pairOf(a, b); l.taken[p] == 0 {
				return p, nil
			}
		}
	}
	return "", fault.New(fault.Unavailable, "all pairs of SELinux categories are taken: remove containers")
}

func pairOf(a, b int) string { return "c" + strconv.Itoa(min(a, b)) + ",c" + strconv.Itoa(max(a, b)) }

// Reserve takes the level of a label that a container already carries.
func (l *Labeller) Reserve(label string) { l.count(label, 1) }

// Release gives back the level of a label that Labels made or Reserve took.
func (l *Labeller) Release(label string) { l.count(label, -1) }

func (l *Labeller) count(label string, by int) {
	c, err := Parse(label)
	if err != nil {
		return
	}
	p := pair(c.Level)
	if p == "" || p == unconfinedPair {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken[p] += by; l.taken[p] <= 0 {
		delete(l.taken, p)
	}
}

// sensitivity is a level's part before the categories.
func sensitivity(level string) string {
	s, _, _ := strings.Cut(level, ":")
	return s
}

// pair is a level's categories, "" if it has none.
func pair(level string) string {
	_, cats, _ := strings.Cut(level, ":")
	return cats
}
