package fluentd

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"

	"berth/base/fault"
)

// The little of msgpack that the forward protocol needs.

func appendStr(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n < 1<<8:
		b = append(b, 0xd9, byte(n))
	case n < 1<<16:
		b = append(b, 0xda, byte(n>>8), byte(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}

func appendUint(b []byte, v uint64) []byte {
	if v < 1<<32 {
		return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xcf), v)
}

// maxWord bounds a string of an acknowledgement.
const maxWord = 1024

// readAck reads {"ack": id}; other fields with strings are passed over.
func readAck(r *bufio.Reader) (id string, err error) {
	first, err := r.ReadByte()
	if err != nil {
		return "", err
	}
	n := int(first & 0x0f)
	switch {
	case first&0xf0 == 0x80:
	case first == 0xde:
		var b [2]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		n = int(binary.BigEndian.Uint16(b[:]))
	default:
		return "", fault.New(fault.Invalid, "no acknowledgement")
	}
	for range n {
		k, err := readStr(r)
		if err != nil {
			return "", err
		}
		v, err := readStr(r)
		if err != nil {
			return "", err
		}
		if k == "ack" {
			id = v
		}
	}
	return id, nil
}

func readStr(r *bufio.Reader) (string, error) {
	first, err := r.ReadByte()
	if err != nil {
		return "", err
	}
	n := 0
	size := 0
	switch {
	case first&0xe0 == 0xa0:
		n = int(first & 0x1f)
	case first == 0xd9, first == 0xc4:
		size = 1
	case first == 0xda, first == 0xc5:
		size = 2
	default:
		return "", fault.New(fault.Invalid, "no string")
	}
	for range size {
		b, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		n = n<<8 | int(b)
	}
	if n > maxWord {
		return "", fault.New(fault.Invalid, "a string of %d bytes", n)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return string(b), err
}

func tlsConfig(addr string) *tls.Config {
	host, _, _ := net.SplitHostPort(addr)
	return &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
}
