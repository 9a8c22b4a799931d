package ldap

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"berth/auth"
)

// Bounds on what one user's groups may cost.
const (
	maxGroups = 2000
	maxDepth  = 32
)

// groups gives the names of a user's groups: each by its short name and by its DN in lower case, or by what GroupNames
// says for either.
func (d *Directory) groups(conn *ldapv3.Conn, name string, e *ldapv3.Entry) ([]string, error) {
	if e.DN == "" {
		return nil, nil // a direct bind that could not read an entry
	}
	w := walk{d: d, conn: conn, names: map[string]string{}}
	var err error
	if d.config.Kind == "ad" {
		err = w.activeDirectory(e)
	} else {
		err = w.others(name, e)
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for dn, short := range w.names {
		renamed := false
		for from, to := range d.config.GroupNames {
			if strings.EqualFold(from, short) || strings.Contains(from, "=") && key(from) == dn {
				all = append(all, to)
				renamed = true
			}
		}
		if !renamed {
			all = append(all, short, dn)
		}
	}
	return auth.Groups(all), nil
}

// walk collects groups. What it has seen it does not ask for again, so that groups that hold each other end.
type walk struct {
	d     *Directory
	conn  *ldapv3.Conn
	names map[string]string // short names by DN, as key writes it
	queue []string          // DNs whose own groups are still to be asked for
}

// add notes a group and reports whether it is new and counts.
func (w *walk) add(dn, short string) bool {
	k := key(dn)
	if _, seen := w.names[k]; seen || short == "" || !below(dn, w.d.config.GroupBase) || len(w.names) >= maxGroups {
		return false
	}
	w.names[k] = short
	w.queue = append(w.queue, dn)
	return true
}

// others asks a directory that does not follow membership itself.
func (w *walk) others(name string, e *ldapv3.Entry) error {
	if err := w.step(e.DN, name, e.GetAttributeValues("memberOf")); err != nil {
		return err
	}
	for depth := 0; w.d.config.Nested && depth < maxDepth && len(w.queue) > 0; depth++ {
		level := w.queue
		w.queue = nil
		for _, dn := range level {
			parents, err := w.memberOf(dn)
			if err != nil {
				return err
			}
			// A group has no memberUid in another: {user} must not match by chance.
			if err := w.step(dn, "", parents); err != nil {
				return err
			}
		}
	}
	return nil
}

// step adds the groups that an entry is in: those that its memberOf names, and those that name it.
func (w *walk) step(dn, user string, memberOf []string) error {
	for _, g := range memberOf {
		short := firstValue(g, w.d.config.GroupAttribute)
		if short == "" {
			found, err := w.d.search(w.conn, g, ldapv3.ScopeBaseObject, 1, "(objectClass=*)", []string{w.d.config.GroupAttribute})
			if err != nil {
				return err
			}
			if len(found) == 1 {
				short = found[0].GetAttributeValue(w.d.config.GroupAttribute)
			}
		}
		w.add(g, short)
	}
	if w.d.config.GroupBase == "" {
		return nil
	}
	if user == "" {
		user = "\x00" // no name holds it: auth.Check
	}
	return w.find(expand(w.d.config.GroupFilter, user, user, dn))
}

func (w *walk) find(filter string) error {
	found, err := w.d.search(w.conn, w.d.config.GroupBase, ldapv3.ScopeWholeSubtree, 0, filter, []string{w.d.config.GroupAttribute})
	for _, g := range found {
		w.add(g.DN, g.GetAttributeValue(w.d.config.GroupAttribute))
	}
	return err
}

func (w *walk) memberOf(dn string) ([]string, error) {
	found, err := w.d.search(w.conn, dn, ldapv3.ScopeBaseObject, 1, "(objectClass=*)", []string{"memberOf"})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0].GetAttributeValues("memberOf"), nil
}

// activeDirectory asks for the groups by memberOf, or with all that they are in by the rule that follows membership; and for
// the primary group, which neither tells of.
func (w *walk) activeDirectory(e *ldapv3.Entry) error {
	if err := w.chain(e.DN, e.GetAttributeValues("memberOf")); err != nil {
		return err
	}
	sid, ok := primaryGroup(e.GetRawAttributeValue("objectSid"), e.GetAttributeValue("primaryGroupID"))
	if !ok || w.d.config.GroupBase == "" {
		return nil
	}
	found, err := w.d.search(w.conn, w.d.config.GroupBase, ldapv3.ScopeWholeSubtree, 2, "(objectSid="+binaryFilter(sid)+")",
		[]string{w.d.config.GroupAttribute, "memberOf"})
	if err != nil {
		return err
	}
	for _, g := range found {
		w.add(g.DN, g.GetAttributeValue(w.d.config.GroupAttribute))
		if w.d.config.Nested {
			if err := w.chain(g.DN, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *walk) chain(dn string, memberOf []string) error {
	for _, g := range memberOf {
		w.add(g, firstValue(g, w.d.config.GroupAttribute))
	}
	if !w.d.config.Nested || w.d.config.GroupBase == "" {
		return nil
	}
	return w.find(fmt.Sprintf("(&(objectClass=group)(member:%s:=%s))", inChain, ldapv3.EscapeFilter(dn)))
}

// primaryGroup gives the SID of a user's primary group: the user's with the group's number in place of its last one
// (MS-DTYP 2.4.2.2: revision, count, authority of 6 bytes, then numbers of 4 bytes in little endian).
func primaryGroup(sid []byte, group string) ([]byte, bool) {
	n, err := strconv.ParseUint(group, 10, 32)
	if err != nil || len(sid) < 12 || len(sid) != 8+4*int(sid[1]) {
		return nil, false
	}
	sid = slices.Clone(sid)
	binary.LittleEndian.PutUint32(sid[len(sid)-4:], uint32(n))
	return sid, true
}

// binaryFilter writes bytes as a filter takes them (RFC 4515 section 3).
func binaryFilter(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, `\%02x`, c)
	}
	return s.String()
}

func anyOf(groups, wanted []string) bool {
	return slices.ContainsFunc(wanted, func(want string) bool {
		return slices.ContainsFunc(groups, func(g string) bool {
			return strings.EqualFold(g, want) || strings.Contains(want, "=") && key(want) == g
		})
	})
}
