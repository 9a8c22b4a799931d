package engine

import (
	"slices"
	"strings"
	"sync"

	"berth/base/fault"
	"berth/base/id"
)

// index finds containers. Its lock is held for memory only, never while anything is done to a container.
type index struct {
	mu    sync.RWMutex
	byID  map[string]*entry
	names map[string]string // name to id; also names that are reserved for a creation under way
	order []string          // ids, sorted, for prefixes
}

func (x *index) init() {
	x.byID, x.names = map[string]*entry{}, map[string]string{}
}

// find resolves a full id, a name, an unambiguous prefix of an id, or a name by a link (PARENT/ALIAS), in this order.
func (x *index) find(ref string) (*entry, error) {
	c, err := x.findOne(ref)
	if err == nil || !fault.Is(err, fault.NotFound) {
		return c, err
	}
	if parent, link := x.byLink(ref); parent != nil {
		target, _ := splitLink(link)
		if linked, lerr := x.findOne(target); lerr == nil {
			return linked, nil
		}
	}
	return nil, err
}

// findOne is find without links.
func (x *index) findOne(ref string) (*entry, error) {
	if ref == "" {
		return nil, fault.New(fault.Invalid, "No container name or ID supplied")
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	if c := x.byID[ref]; c != nil {
		return c, nil
	}
	if c := x.byID[x.names[strings.TrimPrefix(ref, "/")]]; c != nil && !c.hidden {
		return c, nil
	}
	if id.IsHex(ref) {
		i, _ := slices.BinarySearch(x.order, ref)
		var match []string
		for ; i < len(x.order) && strings.HasPrefix(x.order[i], ref) && len(match) < 2; i++ {
			match = append(match, x.order[i])
		}
		switch len(match) {
		case 1:
			return x.byID[match[0]], nil
		case 2:
			return nil, fault.New(fault.Invalid, "multiple IDs found with provided prefix: %s", ref)
		}
	}
	return nil, fault.New(fault.NotFound, "No such container: %s", ref)
}

// reserve claims a name for an id that is being created or renamed.
func (x *index) reserve(name, cid string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if owner, taken := x.names[name]; taken {
		return fault.New(fault.Conflict, "Conflict. The container name \"/%s\" is already in use by container \"%s\". You have to remove (or rename) that container to be able to reuse that name.", name, owner)
	}
	x.names[name] = cid
	return nil
}

// release gives a name up, if cid has it.
func (x *index) release(name, cid string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.names[name] == cid {
		delete(x.names, name)
	}
}

// add makes a container known. Its name was reserved.
func (x *index) add(c *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byID[c.id] = c
	if i, found := slices.BinarySearch(x.order, c.id); !found && !c.hidden {
		x.order = slices.Insert(x.order, i, c.id)
	}
}

// remove forgets a container and its name.
func (x *index) remove(c *entry, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.byID, c.id)
	if x.names[name] == c.id {
		delete(x.names, name)
	}
	if i, found := slices.BinarySearch(x.order, c.id); found {
		x.order = slices.Delete(x.order, i, i+1)
	}
}

// get gives the container of exactly this id, or nil.
func (x *index) get(cid string) *entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.byID[cid]
}

// all gives every container, in no order.
func (x *index) all() []*entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	list := make([]*entry, 0, len(x.byID))
	for _, c := range x.byID {
		list = append(list, c)
	}
	return list
}

func (x *index) each(f func(*entry)) {
	for _, c := range x.all() {
		f(c)
	}
}
