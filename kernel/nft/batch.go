package nft

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Batch is a list of changes that are made together or not at all. Its methods give it back, so that they chain.
type Batch struct {
	changes []change
}

// change is one thing to do: it writes its messages and its line of nft(8).
type change interface {
	encode(w *writer)
	text() string
}

// NewBatch is a batch without changes.
func NewBatch() *Batch { return &Batch{} }

// Empty reports whether the batch does nothing.
func (b *Batch) Empty() bool { return len(b.changes) == 0 }

func (b *Batch) do(c change) *Batch {
	b.changes = append(b.changes, c)
	return b
}

// Add makes a table with all that is in it. A table of the name that exists already is added to.
func (b *Batch) Add(t Table) *Batch { return b.do(addTable{t}) }

// Delete takes a table away with all in it, whether it exists or not.
func (b *Batch) Delete(f Family, table string) *Batch { return b.do(deleteTable{f, table}) }

// Replace makes the table be exactly t at one instant, whatever was in it.
func (b *Batch) Replace(t Table) *Batch { return b.Delete(t.Family, t.Name).Add(t) }

// AddChain adds a chain with its rules to a table that exists.
func (b *Batch) AddChain(f Family, table string, c Chain) *Batch {
	return b.do(addChain{f, table, c})
}

// FlushChain takes all rules out of a chain.
func (b *Batch) FlushChain(f Family, table, chain string) *Batch {
	return b.do(flushChain{f, table, chain})
}

// DeleteChain takes a chain away, to which nothing may jump any more.
func (b *Batch) DeleteChain(f Family, table, chain string) *Batch {
	return b.do(deleteChain{f, table, chain})
}

// AddRules appends rules to a chain.
func (b *Batch) AddRules(f Family, table, chain string, rules ...Rule) *Batch {
	return b.do(addRules{f, table, chain, rules})
}

// AddElements puts elements into the set, of which only Name, Key, Data and Interval count here. One that is there already with other data is an error.
func (b *Batch) AddElements(f Family, table string, set Set, elements ...Element) *Batch {
	if len(elements) == 0 {
		return b
	}
	return b.do(setElements{f, table, set, elements, true})
}

// DeleteElements takes elements out of the set by their keys. One that is not there is an error.
func (b *Batch) DeleteElements(f Family, table string, set Set, elements ...Element) *Batch {
	if len(elements) == 0 {
		return b
	}
	return b.do(setElements{f, table, set, elements, false})
}

// FlushSet takes all elements out of a set.
func (b *Batch) FlushSet(f Family, table, set string) *Batch { return b.do(flushSet{f, table, set}) }

// String gives the changes as nft(8) takes them from its standard input.
func (b *Batch) String() string {
	var s strings.Builder
	for _, c := range b.changes {
		s.WriteString(c.text())
	}
	return s.String()
}

// writer writes the messages of a batch, each with a number that an error of the kernel names.
type writer struct {
	message
	seq   uint32   // number of the last message
	first uint32   // number of the batch's first
	names []string // what each message does, from the first on
}

func (w *writer) start(kind uint16, flags uint16, f Family, what string) int {
	w.seq++
	w.names = append(w.names, what)
	return w.begin(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, w.seq, f, 0)
}

type deleteTable struct {
	family Family
	name   string
}

func (d deleteTable) text() string {
	name := d.family.String() + " " + d.name + "\n"
	return "add table " + name + "delete table " + name
}

func (d deleteTable) encode(w *writer) {
	w.table(d.family, d.name) // so that there is one to delete; "destroy" came with Linux 6.3
	at := w.start(unix.NFT_MSG_DELTABLE, 0, d.family, "delete table "+d.name)
	w.str(unix.NFTA_TABLE_NAME, d.name)
	w.finish(at)
}

func (w *writer) table(f Family, name string) {
	at := w.start(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, f, "add table "+name)
	w.str(unix.NFTA_TABLE_NAME, name)
	w.u32(unix.NFTA_TABLE_FLAGS, 0)
	w.finish(at)
}

type addTable struct{ t Table }

func (a addTable) text() string { return a.t.String() }

func (a addTable) encode(w *writer) {
	t := a.t
	w.table(t.Family, t.Name)
	for _, c := range t.Chains { // first, so that rules and elements can name them
		w.chain(t.Family, t.Name, c)
	}
	for i, s := range t.Sets {
		w.set(t.Family, t.Name, s, uint32(i+1))
	}
	for _, s := range t.Sets {
		w.elements(unix.NFT_MSG_NEWSETELEM, t.Family, t.Name, s, s.Elements)
	}
	for _, c := range t.Chains {
		w.rules(t.Family, t.Name, c.Name, c.Rules)
	}
}

type addChain struct {
	family Family
	table  string
	chain  Chain
}

func (a addChain) text() string {
	c := a.chain
	c.Rules = nil
	name := a.family.String() + " " + a.table
	s := "add chain " + name + " " + c.Name
	if c.Hook != (Hook{}) {
		s += " { " + c.Hook.text() + " }"
	}
	return s + "\n" + addRules{a.family, a.table, c.Name, a.chain.Rules}.text()
}

func (a addChain) encode(w *writer) {
	w.chain(a.family, a.table, a.chain)
	w.rules(a.family, a.table, a.chain.Name, a.chain.Rules)
}

func (w *writer) chain(f Family, table string, c Chain) {
	at := w.start(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, f, "add chain "+c.Name)
	w.str(unix.NFTA_CHAIN_TABLE, table)
	w.str(unix.NFTA_CHAIN_NAME, c.Name)
	if h := c.Hook; h != (Hook{}) {
		n := w.open(unix.NFTA_CHAIN_HOOK)
		w.u32(unix.NFTA_HOOK_HOOKNUM, uint32(h.Point))
		w.u32(unix.NFTA_HOOK_PRIORITY, uint32(int32(h.Priority)))
		w.end(n)
		policy := uint32(accept)
		if h.Drop {
			policy = drop
		}
		w.u32(unix.NFTA_CHAIN_POLICY, policy)
		w.str(unix.NFTA_CHAIN_TYPE, string(h.Type))
	}
	w.finish(at)
}

type flushChain struct {
	family       Family
	table, chain string
}

func (c flushChain) text() string {
	return "flush chain " + c.family.String() + " " + c.table + " " + c.chain + "\n"
}

func (c flushChain) encode(w *writer) {
	at := w.start(unix.NFT_MSG_DELRULE, 0, c.family, "flush chain "+c.chain)
	w.str(unix.NFTA_RULE_TABLE, c.table)
	w.str(unix.NFTA_RULE_CHAIN, c.chain)
	w.finish(at)
}

type flushSet struct {
	family     Family
	table, set string
}

func (s flushSet) text() string {
	return "flush set " + s.family.String() + " " + s.table + " " + s.set + "\n"
}

func (s flushSet) encode(w *writer) {
	at := w.start(unix.NFT_MSG_DELSETELEM, 0, s.family, "flush set "+s.set)
	w.str(unix.NFTA_SET_ELEM_LIST_TABLE, s.table)
	w.str(unix.NFTA_SET_ELEM_LIST_SET, s.set)
	w.finish(at)
}

type deleteChain struct {
	family       Family
	table, chain string
}

func (c deleteChain) text() string {
	return "delete chain " + c.family.String() + " " + c.table + " " + c.chain + "\n"
}

func (c deleteChain) encode(w *writer) {
	flushChain(c).encode(w) // on its own, "delete chain" of older kernels refuses one with rules
	at := w.start(unix.NFT_MSG_DELCHAIN, 0, c.family, "delete chain "+c.chain)
	w.str(unix.NFTA_CHAIN_TABLE, c.table)
	w.str(unix.NFTA_CHAIN_NAME, c.chain)
	w.finish(at)
}

type addRules struct {
	family       Family
	table, chain string
	rules        []Rule
}

func (a addRules) text() string {
	var s strings.Builder
	for _, r := range a.rules {
		s.WriteString("add rule " + a.family.String() + " " + a.table + " " + a.chain + " " + r.text(a.family) + "\n")
	}
	return s.String()
}

func (a addRules) encode(w *writer) { w.rules(a.family, a.table, a.chain, a.rules) }

func (w *writer) rules(f Family, table, chain string, rules []Rule) {
	for _, r := range rules {
		at := w.start(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, f, "add rule to "+chain+": "+r.text(f))
		w.str(unix.NFTA_RULE_TABLE, table)
		w.str(unix.NFTA_RULE_CHAIN, chain)
		n := w.open(unix.NFTA_RULE_EXPRESSIONS)
		p := program{message: w.message, layer: onlyLayer(f)}
		for _, e := range r.Exprs {
			e.encode(&p)
		}
		w.message = p.message
		w.end(n)
		if r.Comment != "" {
			w.attr(unix.NFTA_RULE_USERDATA, userdata(udataComment, cut(r.Comment)+"\x00"))
		}
		w.finish(at)
	}
}

// onlyLayer is the protocol that all packets of a family have.
func onlyLayer(f Family) byte {
	if f == IPv4 || f == IPv6 {
		return byte(f)
	}
	return 0
}

type setElements struct {
	family   Family
	table    string
	set      Set
	elements []Element
	add      bool
}

func (s setElements) text() string {
	verb := "delete element "
	if s.add {
		verb = "add element "
	}
	list := join(s.elements, func(e Element) string { return e.text(s.add) }, ", ")
	return verb + s.family.String() + " " + s.table + " " + s.set.Name + " { " + list + " }\n"
}

func (s setElements) encode(w *writer) {
	kind := uint16(unix.NFT_MSG_DELSETELEM)
	if s.add {
		kind = unix.NFT_MSG_NEWSETELEM
	}
	w.elements(kind, s.family, s.table, s.set, s.elements)
}
