package git

import (
	"strings"

	"github.com/moby/buildkit/util/gitutil"

	"berth/base/fault"
)

// version is what a ref means.
type version struct {
	ref    string // in full (refs/heads/main), or the commit itself
	object string // the object's name: a commit's, or an annotated tag's
	commit string // the tag's commit; "" if object is a commit, or nobody knows
}

// pin is the commit that the files are of, as far as it is known.
func (v *version) pin() string {
	if v.commit != "" {
		return v.commit
	}
	return v.object
}

// choose finds what ref means in what ls-remote prints: lines of an object's name, a tab and a ref. A branch goes before a tag of the same
// name, as git checkout has it. ref "" is the branch that HEAD points to, for which ls-remote is called with --symref.
func choose(output, ref string) (*version, error) {
	refs := map[string]string{}
	head := ""
	for line := range strings.Lines(output) {
		left, right, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "\t")
		if !ok {
			continue
		}
		if target, is := strings.CutPrefix(left, "ref: "); is {
			if right == "HEAD" {
				head = target
			}
			continue
		}
		if _, twice := refs[right]; !twice {
			refs[right] = left
		}
	}
	if ref == "" {
		return defaultBranch(refs, head)
	}
	for _, full := range []string{
		"refs/" + strings.TrimPrefix(ref, "refs/"),
		"refs/heads/" + strings.TrimPrefix(ref, "refs/heads/"),
		"refs/tags/" + strings.TrimPrefix(ref, "refs/tags/"),
	} {
		object, ok := refs[full]
		if !ok {
			continue
		}
		v := &version{ref: full, object: object}
		if strings.HasPrefix(full, "refs/tags/") {
			v.commit = refs[full+"^{}"] // of an annotated tag
		}
		return v, v.check()
	}
	return nil, fault.New(fault.NotFound, "repository does not contain ref %s, output: %q", ref, shorten(output))
}

func defaultBranch(refs map[string]string, head string) (*version, error) {
	if !strings.HasPrefix(head, "refs/heads/") || refs["HEAD"] == "" {
		return nil, fault.New(fault.NotFound, "could not find default branch for repository")
	}
	v := &version{ref: head, object: refs["HEAD"]}
	return v, v.check()
}

// check refuses what no git would say: it goes into arguments and keys.
func (v *version) check() error {
	if !gitutil.IsCommitSHA(v.object) || v.commit != "" && !gitutil.IsCommitSHA(v.commit) {
		return fault.New(fault.Invalid, "invalid commit sha %q", shorten(v.object))
	}
	return checkRef(v.ref)
}

// insist refuses a version that is not the one that the build insists on.
func (v *version) insist(checksum string) error {
	if strings.HasPrefix(v.object, checksum) || v.commit != "" && strings.HasPrefix(v.commit, checksum) {
		return nil
	}
	got := v.object
	if v.commit != "" {
		got += " or " + v.commit
	}
	return fault.New(fault.Invalid, "expected checksum to match %s, got %s", checksum, got)
}

func shorten(s string) string {
	if len(s) > 500 {
		return s[:500] + "…"
	}
	return s
}
