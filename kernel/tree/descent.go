package tree

import (
	"golang.org/x/sys/unix"
)

// descentOpen is how many directories above the one that is being walked a Descent keeps open.
const descentOpen = 32

// Descent walks down a tree and up again with a bounded number of descriptors: whoever makes a tree decides how deep it is, and must not
// decide how many descriptors who walks it needs. Directories far above are closed and opened again, by "..", on the way back, so
// nothing may rename directories of the tree meanwhile; one that is not found again is ESTALE. The zero value is ready for use.
//
//	sub, err := descent.Enter(dir, name)
//	…                           // what is below, in the same way
//	err = descent.Leave(sub)    // dir can be used again
//
// Who gives up because of an error closes what he entered and need not leave it.
type Descent struct {
	above []step
}

// step is a directory that was entered from.
type step struct {
	dir      *Dir
	closed   bool
	dev, ino uint64 // of one that is closed
}

// Enter opens the directory called name in d, as Sub does. Until Leave neither d nor what is above it may be used, but for closing it.
func (t *Descent) Enter(d *Dir, name string) (*Dir, error) {
	sub, err := d.Sub(name)
	if err != nil {
		return nil, err
	}
	t.above = append(t.above, step{dir: d})
	// The first one is not closed: it is whoever's who began.
	if far := len(t.above) - 1 - descentOpen; far > 0 {
		s := &t.above[far]
		st, err := s.dir.Stat("")
		if err != nil {
			sub.Close()
			return nil, err
		}
		s.closed, s.dev, s.ino = true, st.Dev, st.Ino
		s.dir.Close()
	}
	return sub, nil
}

// Leave closes a directory that was entered, and opens the one above it where it was closed.
func (t *Descent) Leave(sub *Dir) error {
	s := t.above[len(t.above)-1]
	t.above = t.above[:len(t.above)-1]
	defer sub.Close()
	if !s.closed {
		return nil
	}
	up, err := sub.Sub("..")
	if err != nil {
		return err
	}
	st, err := up.Stat("")
	if err == nil && (st.Dev != s.dev || st.Ino != s.ino) {
		err = wrap("open", "..", unix.ESTALE)
	}
	if err != nil {
		up.Close()
		return err
	}
	s.dir.fd = up.fd
	return nil
}
