package launch

import (
	"golang.org/x/sys/unix"
)

// section is a list of steps under construction.
type section struct {
	p     *Program
	steps []Step
}

// newSlot names a fresh result slot.
func (p *Program) newSlot(name string) Slot {
	p.Slots = append(p.Slots, name)
	return Slot(len(p.Slots) - 1)
}

// call appends a step whose result is dropped and returns it for refinement; the pointer is valid
// until the next step is appended.
func (s *section) call(what string, nr int, args ...Arg) *Step {
	s.steps = append(s.steps, Step{Nr: nr, Out: NoSlot, What: what})
	st := &s.steps[len(s.steps)-1]
	copy(st.Args[:], args)
	return st
}

// open appends a step whose result is a descriptor kept in a new slot.
func (s *section) open(name, what string, nr int, args ...Arg) Slot {
	slot := s.p.newSlot(name)
	s.call(what, nr, args...).Out = slot
	return slot
}

// expect adds an expected errno that skips the next n steps.
func (st *Step) expect(e unix.Errno, n int) *Step {
	if len(st.OnErr) == maxRescues {
		panic("launch: a step has room for three expected errnos")
	}
	st.OnErr = append(st.OnErr, Rescue{e, n})
	return st
}

// mark is a place in a section that earlier steps want to skip to.
type mark struct{ at []func(target int) }

// onOK makes the section's last step skip to m on success.
func (s *section) onOK(m *mark) {
	i := len(s.steps) - 1
	m.at = append(m.at, func(target int) { s.steps[i].OnOK = target - i - 1 })
}

// onErr makes the section's last step skip to m on an errno.
func (s *section) onErr(m *mark, e unix.Errno) {
	i := len(s.steps) - 1
	s.steps[i].expect(e, 0)
	k := len(s.steps[i].OnErr) - 1
	m.at = append(m.at, func(target int) { s.steps[i].OnErr[k].Skip = target - i - 1 })
}

// here resolves m to the place where the next step will stand.
func (s *section) here(m *mark) {
	for _, set := range m.at {
		set(len(s.steps))
	}
	m.at = nil
}
