package world

import (
	"net"
	"time"

	"golang.org/x/net/ipv4"
)

// relayNames carries datagrams for port 53 on, whatever address they are for: the answer must come from there.
func (w *World) relayNames() error {
	c, err := net.ListenPacket("udp4", ":53")
	if err != nil {
		return err
	}
	p := ipv4.NewPacketConn(c)
	if err := p.SetControlMessage(ipv4.FlagDst, true); err != nil {
		c.Close()
		return err
	}
	w.closers = append(w.closers, c)
	w.busy.Go(func() {
		for {
			buf := make([]byte, 4096)
			n, cm, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			if cm != nil {
				w.busy.Go(func() { w.askName(p, buf[:n], cm.Dst, from) })
			}
		}
	})
	return nil
}

// askName asks the server that was meant, from the machine's namespace.
func (w *World) askName(p *ipv4.PacketConn, question []byte, server net.IP, from net.Addr) {
	out, err := net.Dial("udp4", net.JoinHostPort(server.String(), "53"))
	if err != nil {
		return
	}
	defer out.Close()
	if !w.track(out) {
		return
	}
	defer w.untrack(out)
	_ = out.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := out.Write(question); err != nil {
		return
	}
	answer := make([]byte, 4096)
	n, err := out.Read(answer)
	if err != nil {
		return // as if it had been lost: the client asks again
	}
	_, _ = p.WriteTo(answer[:n], &ipv4.ControlMessage{Src: server}, from)
}
