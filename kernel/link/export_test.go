package link

// Parse runs every reader over a datagram.
func Parse(b []byte) {
	messages(b, func(m message) error {
		m.refused()
		info(m.body)
		route(m.body)
		return nil
	})
}
