package conform

import (
	"strings"

	"berth/test/conform/swagger"
)

// A deviation is known: an answer is not what a description says, and should be as it is.
type deviation struct {
	op   string // the operation; "" any
	text string // is contained in what was found
	from int
	to   int // 0: the newest
	why  string
}

func (d *deviation) covers(f *finding, minor int) bool {
	return (d.op == "" || d.op == f.op) && strings.Contains(f.text, d.text) && minor >= d.from && minor <= d.until()
}

func (d *deviation) until() int {
	if d.to == 0 {
		return swagger.Newest
	}
	return d.to
}

var known = []deviation{}
