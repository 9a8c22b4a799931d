package userns

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/base/fault"
	"berth/kernel/idmap"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string // of %+v, or of the error
	}{
		{"", "{Kind:0 Ref: Auto:{Size:0 Users: Groups:}}"},
		{"private", "{Kind:0 Ref: Auto:{Size:0 Users: Groups:}}"},
		{"host", "{Kind:1 Ref: Auto:{Size:0 Users: Groups:}}"},
		{"auto", "{Kind:2 Ref: Auto:{Size:0 Users: Groups:}}"},
		{"auto:size=1000", "{Kind:2 Ref: Auto:{Size:1000 Users: Groups:}}"},
		{"auto:size=10,uidmapping=0:7:1,uidmapping=3:9:1,gidmapping=0:8:2", "{Kind:2 Ref: Auto:{Size:10 Users:0:7:1,3:9:1 Groups:0:8:2}}"},
		{"container:web", "{Kind:3 Ref:web Auto:{Size:0 Users: Groups:}}"},
		{"container:", `invalid USER mode: "container:"`},
		{"auto:", `invalid USER mode: "auto:"`},
		{"auto:size=0", "size=0"},
		{"auto:size=4294967295", "size=4294967295"},
		{"auto:max=3", `not "max=3"`},
		{"auto:uidmapping=0:0:1", "host's root"},
		{"auto:uidmapping=0:7:1,uidmapping=0:9:1", "overlap inside"},
		{"auto:uidmapping=x", "inside:outside:size"},
		{"keep-id", "ordinary user"},
		{"ns:/proc/1/ns/user", "invalid USER mode"},
	} {
		m, err := Parse(c.in)
		if got := fmt.Sprintf("%+v", m); err == nil && got != c.want {
			t.Errorf("%q: %s, want %s", c.in, got, c.want)
		}
		if err != nil && (!strings.Contains(err.Error(), c.want) || !fault.Is(err, fault.Invalid)) {
			t.Errorf("%q: %v, want %s", c.in, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("auto:size=10,uidmapping=0:7:1,gidmapping=0:8:2")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse(text)
		if err != nil || m.Kind != Auto {
			return
		}
		p := NewPool([]idmap.Block{{Start: 1 << 20, Size: 1 << 20}}, []idmap.Block{{Start: 1 << 20, Size: 1 << 20}})
		got, err := p.Take("a", m.Auto)
		if err != nil {
			return
		}
		if err := got.Check(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if _, root := got.Users.In(0); root {
			t.Errorf("%q: the host's root is in %v", text, got)
		}
	})
}

func TestTake(t *testing.T) {
	blocks := []idmap.Block{{Start: 1000, Size: 100}, {Start: 2000, Size: 250}}
	p := NewPool(blocks, blocks)
	take := func(id string, w Wish, want string) {
		t.Helper()
		m, err := p.Take(id, w)
		got := m.Key()
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	take("a", Wish{Size: 60}, "0:1000:60;0:1000:60")
	take("b", Wish{Size: 60}, "0:2000:60;0:2000:60") // 40 are left of the first block
	take("c", Wish{Size: 40}, "0:2060:40")
	take("d", Wish{Size: 200}, "userns: no 200 host ids in a row")
	p.Release("b")
	take("e", Wish{Size: 60}, "0:2100:60") // not what was just given back
	take("f", Wish{Size: 60}, "0:2160:60")
	take("g", Wish{Size: 60}, "0:2000:60") // round again
	take("h", Wish{Size: 10, Users: idmap.Map{{Inside: 2, Outside: 5000, Size: 3}}, Groups: idmap.Map{{Inside: 0, Outside: 5000, Size: 1}}},
		"0:2220:2,2:5000:3,5:2225:5;0:5000:1,1:2221:9")
	take("i", Wish{Size: 1, Users: idmap.Map{{Inside: 0, Outside: 5001, Size: 1}}}, "userns: the host ids of mapping 0:5001:1 are another container's")
	take("j", Wish{Size: 1, Users: idmap.Map{{Inside: 0, Outside: 2001, Size: 1}}}, "userns: the host ids of mapping 0:2001:1 are another container's")
	take("k", Wish{}, "userns: no 65536")
	if p.Left() != 350-60-40-60-60-60-10 {
		t.Errorf("%d left", p.Left())
	}
}

// A pool that was made anew from what containers hold gives nothing of it out.
func TestKeep(t *testing.T) {
	blocks := []idmap.Block{{Start: 1 << 20, Size: 1 << 16}}
	p := NewPool(blocks, blocks)
	rng := rand.New(rand.NewPCG(1, 2))
	held := map[string]idmap.Pair{}
	for i := range 2000 {
		id := fmt.Sprint(i)
		switch rng.IntN(10) {
		case 0: // the engine is killed and comes back
			p = NewPool(blocks, blocks)
			for id, m := range held {
				p.Keep(id, m)
			}
		case 1, 2, 3, 4:
			for id := range held {
				p.Release(id)
				delete(held, id)
				break
			}
		default:
			if m, err := p.Take(id, Wish{Size: uint32(1 + rng.IntN(2000))}); err == nil {
				held[id] = m
			}
		}
		var all []idmap.Block
		for _, m := range held {
			for _, r := range m.Users {
				all = append(all, idmap.Block{Start: r.Outside, Size: r.Size})
			}
		}
		slices.SortFunc(all, byStart)
		for i := 1; i < len(all); i++ {
			if crosses(all[i-1], all[i]) {
				t.Fatalf("%v and %v", all[i-1], all[i])
			}
		}
	}
}

func settings(t *testing.T, subuid, subgid string) Settings {
	t.Helper()
	dir := t.TempDir()
	s := Settings{Passwd: filepath.Join(dir, "passwd"), Subuid: filepath.Join(dir, "subuid"), Subgid: filepath.Join(dir, "subgid"), Run: func(name string, args ...string) error {
		t.Errorf("runs %s %v", name, args)
		return nil
	}}
	for path, text := range map[string]string{s.Passwd: "root:x:0:0::/:/bin/sh\nanna:x:1000:1000::/:/bin/sh\n", s.Subuid: subuid, s.Subgid: subgid} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestRead(t *testing.T) {
	const ids = "anna:100000:65536\nanna:300000:10\ndockremap:500000:65536\n"
	for _, c := range []struct {
		remap, ids string
		kind       Kind
		want       string // mapping, or the error
	}{
		{"", ids, Host, ";"},
		{"auto", ids, Auto, ";"},
		{"root", ids, Host, ";"},
		{"anna", ids, Default, "0:100000:65536,65536:300000:10;0:100000:65536,65536:300000:10"},
		{"anna:users", ids, Default, "0:100000:65536,"},
		{"1000:1000", ids, Default, "0:100000:65536,"},
		{"default", ids, Default, "0:500000:65536;0:500000:65536"},
		{"bert", ids, Host, `Error during "bert" user lookup`},
		{"1001", ids, Host, "Uid 1001 has no entry in"},
		{"anna", "", Host, "Can't create ID mappings: no subordinate ids for user anna"},
		{":x", ids, Host, "invalid User/Group specification in --userns-remap"},
		{"a:b:c", ids, Host, "invalid User/Group specification in --userns-remap"},
	} {
		s := settings(t, c.ids, c.ids)
		s.Remap = c.remap
		got, err := Read(s)
		text := got.Remap.Key()
		if err != nil {
			text = err.Error()
		}
		if got.Default != c.kind || !strings.HasPrefix(text, c.want) {
			t.Errorf("%q: %v %s, want %v %s", c.remap, got.Default, text, c.kind, c.want)
		}
	}
}

func TestDefaultUserIsMade(t *testing.T) {
	s := settings(t, "anna:100000:65536\n", "")
	var ran []string
	s.Remap, s.Run = "default", func(name string, args ...string) error {
		ran = append(ran, name+" "+strings.Join(args, " "))
		if name == "useradd" {
			return nil
		}
		file := s.Subuid
		if args[0] == "--add-subgids" {
			file = s.Subgid
		}
		start, _, _ := strings.Cut(args[1], "-")
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString("dockremap:" + start + ":65536\n")
		return err
	}
	c, err := Read(s)
	if err != nil || c.Remap.Key() != "0:165536:65536;0:100000:65536" {
		t.Errorf("%s %v", c.Remap.Key(), err)
	}
	if want := []string{"useradd --system --no-create-home --shell /bin/false dockremap", "usermod --add-subuids 165536-231071 dockremap", "usermod --add-subgids 100000-165535 dockremap"}; !slices.Equal(ran, want) {
		t.Errorf("ran %q", ran)
	}
}

func TestPool(t *testing.T) {
	for _, c := range []struct {
		pool, subuid, subgid string
		want                 string
	}{
		{"", "", "", "[{1879048192 268369920} {2147483648 1879048192}] [{1879048192 268369920} {2147483648 1879048192}]"},
		{"", "x:2147483648:65536\n", "", "[{1879048192 268369920} {2147549184 1878982656}] [{1879048192 268369920} {2147483648 1879048192}]"},
		{"", "containers:5000:10\n", "containers:6000:10\n", "[{5000 10}] [{6000 10}]"},
		{"", "containers:5000:10\nberth:7000:5\n", "containers:6000:10\nberth:8000:5\n", "[{7000 5}] [{8000 5}]"},
		{"70000:10", "berth:7000:5\n", "berth:8000:5\n", "[{70000 10}] [{70000 10}]"},
		{"999:10", "", "", "the system's own"},
		{"70000", "", "", "START:SIZE"},
		{"4294967290:10", "", "", "START:SIZE"},
	} {
		s := settings(t, c.subuid, c.subgid)
		s.Pool = c.pool
		got, err := Read(s)
		text := fmt.Sprint(got.Users, got.Groups)
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, c.want) {
			t.Errorf("%q: %s, want %s", c.pool, text, c.want)
		}
	}
	p := NewPool([]idmap.Block{{Start: 10, Size: 10}, {Start: 20, Size: 5}}, []idmap.Block{{Start: 15, Size: 100}})
	if len(p.blocks) != 1 || p.blocks[0] != (idmap.Block{Start: 15, Size: 10}) {
		t.Errorf("%v", p.blocks)
	}
}

func BenchmarkTake(b *testing.B) {
	blocks := highIDs
	p := NewPool(blocks, blocks)
	for i := range 10000 {
		if _, err := p.Take(fmt.Sprint(i), Wish{}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		p.Take("x", Wish{})
		p.Release("x")
	}
}
