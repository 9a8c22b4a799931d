package engine

// detachable is a terminal's attachment that notices when its client types the detach keys. The keeper ends the attachment at the same
// key, by the same rule: a key that does not go on the sequence may begin it.
type detachable struct {
	Conn
	keys    []byte
	matched int
	tell    func() // called once, by whoever writes
}

// noticeDetach wraps an attachment if it has detach keys. keys is what was asked for; nil: Docker's.
func noticeDetach(conn Conn, tty, stdin bool, keys []byte, tell func()) Conn {
	keys = ttyKeys(tty, keys)
	if len(keys) == 0 || !stdin || conn == nil {
		return conn
	}
	return &detachable{Conn: conn, keys: keys, tell: tell}
}

// Write passes the client's input on.
func (d *detachable) Write(p []byte) (int, error) {
	for _, c := range p {
		if d.matched == len(d.keys) {
			break
		}
		switch {
		case c == d.keys[d.matched]:
			d.matched++
		case c == d.keys[0]:
			d.matched = 1
		default:
			d.matched = 0
		}
		if d.matched == len(d.keys) {
			d.tell()
		}
	}
	return d.Conn.Write(p)
}
