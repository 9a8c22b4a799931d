package server

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// diary writes the keeper's own log, a line an event, in slog's text form:
//
//	time=2026-01-02T15:04:05.123Z level=WARN msg="log write failed" id=… err="no space left on device"
//
// It is not log/slog because that brings encoding/json and reflection into a process whose memory
// is counted in pages.
type diary struct{ fd int }

func (d diary) info(msg string, kv ...string) { d.write("INFO", msg, kv) }
func (d diary) warn(msg string, kv ...string) { d.write("WARN", msg, kv) }

func (d diary) write(level, msg string, kv []string) {
	b := make([]byte, 0, 256)
	b = append(b, "time="...)
	b = time.Now().UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = append(b, " level="...)
	b = append(b, level...)
	b = append(b, " msg="...)
	b = strconv.AppendQuote(b, msg)
	for i := 0; i+1 < len(kv); i += 2 {
		b = append(b, ' ')
		b = append(b, kv[i]...)
		b = append(b, '=')
		if plainWord(kv[i+1]) {
			b = append(b, kv[i+1]...)
		} else {
			b = strconv.AppendQuote(b, kv[i+1])
		}
	}
	b = append(b, '\n')
	_, _ = unix.Write(d.fd, b)
}

func plainWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c == '=' || c >= 0x7f {
			return false
		}
	}
	return s != ""
}
