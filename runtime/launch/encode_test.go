package launch

import (
	"bytes"
	"testing"

	"berth/kernel/probe"
)

// FuzzDecode: whatever bytes arrive, Decode answers with an error or with a Program that can be laid
// out and printed, and that encodes to something that decodes to the same.
func FuzzDecode(f *testing.F) {
	for _, g := range goldens {
		s := plainSpec("/bundle/rootfs", "nginx")
		o := Options{Facts: probe.AssumeVersion(6, 12), IsFile: func(string) bool { return false }}
		g.specs(s, &o)
		p, err := Compile(s, o)
		must(f, err)
		f.Add(p.Encode())
	}
	f.Add([]byte{formatVersion})
	var reused Decoder
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decode(b)
		if q, err2 := reused.Decode(b); (err == nil) != (err2 == nil) {
			t.Fatalf("in used memory: %v, in fresh: %v", err2, err)
		} else if err == nil && q.String() != p.String() {
			t.Fatalf("in used memory:\n%s\nin fresh:\n%s", q, p)
		}
		if err != nil {
			return
		}
		again, err := decode(p.Encode())
		must(t, err)
		if again.String() != p.String() || !bytes.Equal(again.Encode(), p.Encode()) {
			t.Fatal("encoding does not round-trip")
		}
		layout(nil, p.Child, make([]int, len(p.Slots)), -1, tableAddr)
	})
}

// TestDecodeAllocates keeps the number of allocations from growing with the program.
func TestDecodeAllocates(t *testing.T) {
	p, err := Compile(plainSpec("/r", "true"), Options{Facts: probe.AssumeVersion(6, 12), IsFile: func(string) bool { return false }})
	must(t, err)
	b := p.Encode()
	var d Decoder
	if n := testing.AllocsPerRun(10, func() { _, err = d.Decode(b) }); n > 4 || err != nil {
		t.Errorf("%v allocations for %d steps, want 4 at most: %v", n, len(p.Prepare)+len(p.Child), err)
	}
	if n := testing.AllocsPerRun(10, func() { _, err = decode(b) }); n > 40 || err != nil {
		t.Errorf("%v allocations in fresh memory, want 40 at most: %v", n, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	p, err := Compile(plainSpec("/r", "true"), Options{Facts: probe.AssumeVersion(6, 12), IsFile: func(string) bool { return false }})
	must(t, err)
	good := p.Encode()
	for cut := 0; cut < len(good); cut += 7 {
		if _, err := decode(good[:cut]); err == nil {
			t.Fatalf("a program cut at byte %d of %d is accepted", cut, len(good))
		}
	}
	if _, err := decode(append(bytes.Clone(good), 0)); err == nil {
		t.Error("a trailing byte is accepted")
	}
	good[0]++
	if _, err := decode(good); err == nil {
		t.Error("an unknown format is accepted")
	}
}
