package tarstream

import (
	"strconv"
	"strings"
)

const xattrPrefix = "SCHILY.xattr."

// parsePAX reads the records "LENGTH KEY=VALUE\n" of an extended header. The pairs of sparse format 0.0, which
// repeat their keys, become one GNU.sparse.map as in format 0.1.
func parsePAX(b []byte, maxFragments int) (map[string]string, error) {
	s := string(b)
	records := map[string]string{}
	var sparse []string
	for s != "" {
		key, value, rest, ok := paxRecord(s)
		if !ok {
			return nil, malformed("PAX record")
		}
		s = rest
		if key != "GNU.sparse.offset" && key != "GNU.sparse.numbytes" {
			records[key] = value
			continue
		}
		if (len(sparse)%2 == 0) != (key == "GNU.sparse.offset") || strings.Contains(value, ",") || len(sparse) > 2*maxFragments {
			return nil, malformed("sparse map in PAX records")
		}
		sparse = append(sparse, value)
	}
	if len(sparse) > 0 {
		records["GNU.sparse.map"] = strings.Join(sparse, ",")
	}
	return records, nil
}

// paxRecord cuts the first record off s.
func paxRecord(s string) (key, value, rest string, ok bool) {
	digits, after, ok := strings.Cut(s, " ")
	if !ok {
		return "", "", "", false
	}
	n, err := strconv.ParseInt(digits, 10, 0)
	if err != nil || n < 5 || n > int64(len(s)) {
		return "", "", "", false
	}
	n -= int64(len(digits) + 1) // counts from the start of after now
	if n <= 0 || after[n-1] != '\n' {
		return "", "", "", false
	}
	key, value, ok = strings.Cut(after[:n-1], "=")
	if !ok || key == "" {
		return "", "", "", false
	}
	text := key
	switch key {
	case "path", "linkpath", "uname", "gname":
		text = value
	}
	return key, value, after[n:], !strings.Contains(text, "\x00")
}

// mergePAX overrides the header's fields. An empty value keeps what the header block said.
func mergePAX(h *Header, records map[string]string) error {
	for k, v := range records {
		if v == "" {
			continue
		}
		ok := true
		switch k {
		case "path":
			h.Name = v
		case "linkpath":
			h.Linkname = v
		case "uname":
			h.Uname = v
		case "gname":
			h.Gname = v
		case "uid":
			h.UID, ok = decimal(v)
		case "gid":
			h.GID, ok = decimal(v)
		case "size":
			h.Size, ok = decimal(v)
		case "mtime":
			h.ModTime, ok = paxTime(v)
		case "atime":
			h.Access, ok = paxTime(v)
		case "comment":
			h.Comment = v
		case "ctime":
			_, ok = paxTime(v)
		default:
			if attr, is := strings.CutPrefix(k, xattrPrefix); is {
				if h.Xattrs == nil {
					h.Xattrs = map[string]string{}
				}
				h.Xattrs[attr] = v
			}
		}
		if !ok {
			return malformed("PAX record " + k)
		}
	}
	return nil
}

// paxTime reads seconds with a fraction; digits after the ninth are dropped.
func paxTime(s string) (Time, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, ok := decimal(whole)
	if !ok {
		return Time{}, false
	}
	nsec, unit := int64(0), int64(100_000_000)
	for i := range len(fraction) {
		c := fraction[i]
		if c < '0' || c > '9' {
			return Time{}, false
		}
		nsec += int64(c-'0') * unit
		unit /= 10
	}
	if nsec > 0 && strings.HasPrefix(whole, "-") {
		sec, nsec = sec-1, 1_000_000_000-nsec
	}
	return Time{sec, nsec}, true
}
