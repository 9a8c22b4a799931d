package compress

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ulikunitz/xz"

	"berth/base/fault"
)

// xzOf is a stream of blocks of so many bytes.
func xzOf(t testing.TB, b []byte, block int64, check byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.WriterConfig{BlockSize: block, CheckSum: check, NoCheckSum: check == 0, DictCap: 1 << 16}.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// largeDictionary has the last block of a file of ours ask for 4 GiB, with a checksum that says it is meant.
func largeDictionary(t testing.TB, b []byte) []byte {
	t.Helper()
	b = bytes.Clone(b)
	// Header: length 2 (12 bytes), flags 0, LZMA2, one property, its value, padding, CRC32.
	at := bytes.LastIndex(b, []byte{2, 0, 0x21, 1, 8, 0, 0, 0})
	if at < 0 {
		t.Fatal("no block")
	}
	b[at+4] = 40
	binary.LittleEndian.PutUint32(b[at+8:], crc32.ChecksumIEEE(b[at:at+8]))
	return b
}

// The dictionary of every block is looked at, in every stream of a file, however the bytes come.
func TestEveryXzDictionaryIsLookedAt(t *testing.T) {
	raw := data(100_000)
	empty, one := xzOf(t, nil, 1<<20, xz.CRC64), xzOf(t, raw, 1<<20, xz.CRC32)
	pad := make([]byte, 8)
	for name, b := range map[string][]byte{
		"first block":         largeDictionary(t, one),
		"last of many blocks": largeDictionary(t, xzOf(t, raw, 10_000, xz.CRC64)),
		"without checksums":   largeDictionary(t, xzOf(t, raw, 10_000, 0)),
		"with SHA-256":        largeDictionary(t, xzOf(t, raw, 33_333, xz.SHA256)),
		"second stream":       largeDictionary(t, append(bytes.Clone(empty), one...)),
		"behind padding":      largeDictionary(t, bytes.Join([][]byte{one, pad, empty, pad, one}, nil)),
	} {
		for how, r := range map[string]io.Reader{"whole": bytes.NewReader(b), "bytes": iotest.OneByteReader(bytes.NewReader(b))} {
			x, _, err := NewReader(r)
			if err == nil {
				_, err = io.Copy(io.Discard, x)
				x.Close()
			}
			if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "dictionary larger") {
				t.Errorf("%s, %s: %v", name, how, err)
			}
		}
	}
}

// What is well formed is read, as the tool xz makes it, too.
func TestXzFiles(t *testing.T) {
	raw := data(300_000)
	files := map[string][]byte{
		"streams": bytes.Join([][]byte{xzOf(t, raw[:1000], 1<<20, xz.CRC32), make([]byte, 4), xzOf(t, nil, 1<<20, xz.CRC64), xzOf(t, raw[1000:], 7000, 0)}, nil),
		"blocks":  xzOf(t, raw, 1000, xz.SHA256), // whose index is long
	}
	if tool, err := exec.LookPath("xz"); err == nil {
		for _, args := range []string{"-0", "-T2 --block-size=20000", "-9e --check=none", "--check=sha256 --lzma2=preset=3,dict=64MiB"} {
			c := exec.Command(tool, append(strings.Fields(args), "-c")...)
			c.Stdin = bytes.NewReader(raw)
			if files[args], err = c.Output(); err != nil {
				t.Fatal(args, err)
			}
		}
	}
	for name, b := range files {
		x, kind, err := NewReader(iotest.HalfReader(bytes.NewReader(b)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(x)
		x.Close()
		if err != nil || kind != Xz || !bytes.Equal(got, raw) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// FuzzXz: what the decoder takes, the look at its headers lets pass, but for dictionaries.
func FuzzXz(f *testing.F) {
	f.Add(xzOf(f, data(3000), 1000, xz.CRC32))
	f.Add(append(xzOf(f, nil, 1000, xz.CRC64), xzOf(f, data(100), 1000, 0)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 1 << 20
		x, err := openXz(bytes.NewReader(b))
		if err == nil {
			_, err = io.CopyN(io.Discard, x, most)
		}
		if err == nil || err == io.EOF || err == errXzDictionary {
			return
		}
		// Every block before the refusal had a dictionary that may be; the decoder may look at those alone.
		if w := (&xzWatch{}); strings.Contains(err.Error(), errXz.Error()) {
			w.expect(xzMagicLen, (*xzWatch).stream)
			if looked := w.look(b); looked != errXz {
				t.Errorf("%v, not %v", looked, errXz)
			}
			y, err := xz.NewReader(bytes.NewReader(b))
			if err == nil {
				_, err = io.Copy(io.Discard, io.LimitReader(y, most))
			}
			if err == nil {
				t.Error("the decoder takes it")
			}
		}
	})
}
