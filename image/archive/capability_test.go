package archive

import (
	"bytes"
	"testing"
)

func TestCapabilityOwners(t *testing.T) {
	plain := append([]byte{1, 0, 0, 2}, bytes.Repeat([]byte{7}, 16)...)
	owned := append(append([]byte{1, 0, 0, 3}, bytes.Repeat([]byte{7}, 16)...), 0xa0, 0x86, 1, 0)
	for _, c := range []struct {
		in   []byte
		root uint32
		out  []byte
		back []byte
	}{
		{plain, 100000, owned, plain}, {plain, 0, plain, plain}, {owned, 100000, owned, plain}, {[]byte{1}, 100000, []byte{1}, []byte{1}}, {nil, 5, nil, nil},
	} {
		got := capOf(c.in, c.root)
		if !bytes.Equal(got, c.out) {
			t.Errorf("%x for %d: %x, want %x", c.in, c.root, got, c.out)
		}
		if back := plainCap(got, c.root); !bytes.Equal(back, c.back) {
			t.Errorf("%x of %d: %x, want %x", got, c.root, back, c.back)
		}
	}
	if got := plainCap(owned, 5); !bytes.Equal(got, owned) {
		t.Errorf("of another root: %x", got)
	}
}
