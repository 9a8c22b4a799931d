package catalog

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
)

// Where a word was found, best first. A repository whose name has the word is about the thing; one whose
// description has it mentions the thing.
const (
	inName = 1 << iota
	inDescription
	inLabel
	inTag
	inLong
)

// Bounds of what one repository can put into the index: a description is text from a stranger.
const (
	maxTerm  = 64   // bytes of one term; longer words are cut
	maxTerms = 2000 // terms of one repository
	maxQuery = 256  // bytes of a query that are looked at
	maxWords = 12   // words of a query that are looked at
)

// index finds repositories by words. It is a plain value without a lock: the catalog guards it.
type index struct {
	docs     map[string]*document
	postings map[string]map[*document]uint8 // term -> where
	terms    []string                       // keys of postings, sorted: what a prefix is looked up in
}

// document is what the index holds of one entry.
type document struct {
	entry Entry
	name  string // lower case, as people see it
	terms []string
}

func newIndex() *index {
	return &index{docs: map[string]*document{}, postings: map[string]map[*document]uint8{}}
}

// put replaces what is known of e.Name.
func (x *index) put(e Entry) {
	x.remove(e.Name)
	d := &document{entry: e, name: strings.ToLower(e.Shown())}
	where := map[string]uint8{}
	add := func(bit uint8, texts ...string) {
		for _, text := range texts {
			for _, w := range words(text) {
				if _, ok := where[w]; ok || len(where) < maxTerms {
					where[w] |= bit
				}
			}
		}
	}
	add(inName, d.name)
	add(inDescription, e.Short)
	for _, k := range sortedKeys(e.Labels) {
		add(inLabel, e.Labels[k])
	}
	add(inTag, e.Tags...)
	add(inLong, e.Long)
	for term, bits := range where {
		at := x.postings[term]
		if at == nil {
			at = map[*document]uint8{}
			x.postings[term] = at
			i, _ := slices.BinarySearch(x.terms, term)
			x.terms = slices.Insert(x.terms, i, term)
		}
		at[d] = bits
		d.terms = append(d.terms, term)
	}
	x.docs[e.Name] = d
}

// refresh replaces an entry whose words are the same: for counts and stars.
func (x *index) refresh(e Entry) {
	if d := x.docs[e.Name]; d != nil {
		d.entry = e
	}
}

// remove takes a repository out; one that is not there is no error.
func (x *index) remove(name string) {
	d := x.docs[name]
	if d == nil {
		return
	}
	delete(x.docs, name)
	for _, term := range d.terms {
		at := x.postings[term]
		delete(at, d)
		if len(at) > 0 {
			continue
		}
		delete(x.postings, term)
		if i, ok := slices.BinarySearch(x.terms, term); ok {
			x.terms = slices.Delete(x.terms, i, i+1)
		}
	}
}

// search gives the entries that have every word of the query, best first. A query without a word finds all.
func (x *index) search(query string) []Entry {
	query = strings.ToLower(strings.TrimSpace(query))
	if len(query) > maxQuery {
		query = query[:maxQuery]
	}
	query = strings.TrimPrefix(query, library)
	asked := words(query)
	if len(asked) > maxWords {
		asked = asked[:maxWords]
	}
	if len(asked) == 0 && strings.Trim(query, "*/ ") != "" {
		return nil // something was asked, but in no letters
	}
	found := make(map[*document]uint8, 16) // where the words were found, all together
	for i, w := range asked {
		hits := x.lookup(w)
		if i == 0 {
			found = hits
			continue
		}
		for d := range found {
			bits, ok := hits[d]
			if !ok {
				delete(found, d)
				continue
			}
			inAll := found[d] & bits & inName // it is about the thing only if every word is in its name
			found[d] = (found[d]|bits)&^inName | inAll
		}
	}
	if len(asked) == 0 {
		for _, d := range x.docs {
			found[d] = inName
		}
	}
	type hit struct {
		d    *document
		tier int
	}
	hits := make([]hit, 0, len(found))
	path := strings.Trim(query, "/*")
	for d, bits := range found {
		if strings.Contains(path, "/") && !strings.Contains(d.name, path) {
			continue // what has a slash is a name, or the beginning of one
		}
		hits = append(hits, hit{d, tier(d.name, query, bits)})
	}
	slices.SortFunc(hits, func(a, b hit) int {
		return cmp.Or(
			cmp.Compare(a.tier, b.tier),
			-compareBool(a.d.entry.Official, b.d.entry.Official),
			-cmp.Compare(a.d.entry.Stars, b.d.entry.Stars),
			-cmp.Compare(a.d.entry.Pulls, b.d.entry.Pulls),
			cmp.Compare(a.d.name, b.d.name),
			cmp.Compare(a.d.entry.Name, b.d.entry.Name),
		)
	})
	entries := make([]Entry, len(hits))
	for i, h := range hits {
		entries[i] = h.d.entry
	}
	return entries
}

// tier is the class of a hit, best 0: the very name; the last part of the name; somewhere in the name;
// only in what is written about it.
func tier(name, query string, bits uint8) int {
	switch {
	case name == query:
		return 0
	case strings.HasSuffix(name, "/"+query):
		return 1
	case bits&inName != 0:
		return 2
	}
	return 3
}

// lookup gives the documents that have a term beginning with w, or whose name contains w.
func (x *index) lookup(w string) map[*document]uint8 {
	hits := map[*document]uint8{}
	i, _ := slices.BinarySearch(x.terms, w)
	for ; i < len(x.terms) && strings.HasPrefix(x.terms[i], w); i++ {
		for d, bits := range x.postings[x.terms[i]] {
			hits[d] |= bits
		}
	}
	for _, d := range x.docs {
		if strings.Contains(d.name, w) {
			hits[d] |= inName
		}
	}
	return hits
}

// words splits a text into lower-case terms: runs of letters and digits. What has dots in it (1.27.3,
// example.org) is one term, so that "1.27" finds it as a beginning, and its parts are terms as well.
func words(text string) []string {
	var out []string
	for _, run := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return r != '.' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.Mn, r)
	}) {
		run = strings.Trim(run, ".")
		if run == "" {
			continue
		}
		out = append(out, cut(run))
		if strings.Contains(run, ".") {
			for part := range strings.SplitSeq(run, ".") {
				if part != "" {
					out = append(out, cut(part))
				}
			}
		}
	}
	return out
}

// cut bounds a term without breaking a letter.
func cut(s string) string {
	if len(s) <= maxTerm {
		return s
	}
	return strings.ToValidUTF8(s[:maxTerm], "")
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
