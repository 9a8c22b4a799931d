// Package checkup has the words in which a room tells whether what it keeps on disk is whole.
//
// A Room is what one room looked at and what it found. A Damage is one thing that is wrong: what a repair would do about it, if there is
// a way that invents nothing, and what became of it once that was tried. Rooms fill these in; who asked them prints them.
package checkup

import "slices"

// Room is the outcome of one room's check.
type Room struct {
	Name    string   `json:"room"`    // "containers", "images", "volumes" …
	Checked []Count  `json:"checked"` // what was looked at
	Damages []Damage `json:"damages"`
}

// Count is how many of something there were.
type Count struct {
	What string `json:"what"` // "records", in the plural
	N    int    `json:"n"`
}

// Damage is one thing that is wrong.
type Damage struct {
	Subject string `json:"subject"`          // id, name, or path below the data root
	What    string `json:"what"`             // one clause, without a full stop
	Repair  string `json:"repair,omitempty"` // what a repair does about it; "": there is no way that invents nothing
	Advice  string `json:"advice,omitempty"` // what a person can do where there is none

	Repaired bool   `json:"repaired,omitempty"`
	Failed   string `json:"failed,omitempty"` // why it was not repaired, where that was tried
}

// Count adds what was looked at.
func (r *Room) Count(what string, n int) { r.Checked = append(r.Checked, Count{what, n}) }

// Found adds a damage and, where fix is not nil, repairs it at once. repair says what fix does, also when nobody wants it now.
func (r *Room) Found(d Damage, fix func() error) {
	if fix != nil {
		if err := fix(); err != nil {
			d.Failed = err.Error()
		} else {
			d.Repaired = true
		}
	}
	r.Damages = append(r.Damages, d)
}

// OK reports whether nothing is damaged, or everything that was is repaired.
func (r *Room) OK() bool {
	return !slices.ContainsFunc(r.Damages, func(d Damage) bool { return !d.Repaired })
}
