package port

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"berth/base/fault"
	"berth/kernel/netns/alone"
	"berth/kernel/sock"
)

func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

var ctx = context.Background()

// keeper parks descriptors as the real one does.
type keeper struct {
	mu    sync.Mutex
	files map[string]*os.File
}

func (k *keeper) Park(_ context.Context, name string, f *os.File) error {
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.files[name] = os.NewFile(uintptr(fd), name)
	return nil
}

func (k *keeper) Take(_ context.Context, name string) (*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.files[name]; f != nil {
		return sock.Again(f)
	}
	return nil, fault.New(fault.NotFound, "nothing is parked as %s", name)
}

func (k *keeper) Unpark(_ context.Context, name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.files[name]; f != nil {
		f.Close()
		delete(k.files, name)
	}
	return nil
}

func (k *keeper) Parked(context.Context) (names []string, err error) {
	for n := range k.files {
		names = append(names, n)
	}
	return names, nil
}

var (
	all4 = netip.IPv4Unspecified()
	all6 = netip.IPv6Unspecified()
	lo   = netip.MustParseAddr("127.0.0.1")
)

func TestReserve(t *testing.T) {
	alone.Need(t)
	k := &keeper{files: map[string]*os.File{}}
	for name, parker := range map[string]Parker{"parked": k, "held": nil} {
		t.Run(name, func(t *testing.T) {
			table := New(parker, slog.New(slog.DiscardHandler))
			nx, tc := Holder{"1", "nx"}, Holder{"2", "tc"}
			got, err := table.Reserve(ctx, nx, []Want{{"tcp", []netip.Addr{all4, all6}, 80, 80}, {"udp", []netip.Addr{lo}, 53, 53}})
			if err != nil || fmt.Sprint(got) != "[80 53]" {
				t.Fatal(got, err)
			}
			if _, err := net.Listen("tcp4", "127.0.0.1:80"); err == nil {
				t.Error("a program of the host got the port")
			}
			if c, err := net.Dial("tcp4", "127.0.0.1:80"); err == nil {
				c.Close()
				t.Error("the reservation takes connections")
			}
			_, err = table.Reserve(ctx, tc, []Want{{"tcp", []netip.Addr{all4}, 81, 81}, {"tcp", []netip.Addr{lo}, 80, 80}})
			if !fault.Is(err, fault.Conflict) || err.Error() != "Bind for 127.0.0.1:80 failed: port is already allocated (by container nx)" {
				t.Errorf("got %v", err)
			}
			if n := table.Count(); n != 3 {
				t.Errorf("%d held after a failure, want 3", n)
			}
			got, err = table.Reserve(ctx, tc, []Want{{"tcp", []netip.Addr{all4, all6}, 80, 90}, {"tcp", []netip.Addr{all4, all6}, 0, 0}})
			if err != nil || got[0] != 81 || got[1] < 1024 {
				t.Error(got, err)
			}
			if err := table.Move("2", nx, Key{"tcp", all4, 81}); err != nil {
				t.Error(err)
			}
			table.Rename("1", "ny")
			if h, ok := table.Holder(Key{"tcp", all4, 81}); !ok || h.Name != "ny" {
				t.Error(h, ok)
			}
			var all []Key
			for k := range table.held {
				all = append(all, k)
			}
			table.Release(ctx, all...)
			table.Release(ctx, all...)
			if len(table.by) != 0 || table.Count() != 0 || len(k.files) != 0 {
				t.Errorf("left: %d held, %d parked", table.Count(), len(k.files))
			}
			l, err := net.Listen("tcp4", "127.0.0.1:80")
			if err != nil {
				t.Error(err)
			} else {
				l.Close()
			}
		})
	}
}

func TestProgramOfTheHost(t *testing.T) {
	alone.Need(t)
	for _, network := range []string{"tcp", "tcp4"} {
		l, err := net.Listen(network, ":8080")
		if err != nil {
			t.Fatal(err)
		}
		table := New(nil, slog.New(slog.DiscardHandler))
		_, err = table.Reserve(ctx, Holder{"1", "nx"}, []Want{{"tcp", []netip.Addr{all4}, 8080, 8080}})
		want := fmt.Sprintf("(by process %d, ", os.Getpid())
		if !fault.Is(err, fault.Conflict) || !strings.HasPrefix(err.Error(), "Bind for 0.0.0.0:8080 failed: port is already allocated") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", network, err, want)
		}
		l.Close()
	}
	if _, err := New(nil, nil).Reserve(ctx, Holder{}, []Want{{"tcp", []netip.Addr{netip.MustParseAddr("192.0.2.1")}, 1, 1}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("an address of nobody: %v", err)
	}
}

// TestTimeWait reserves a port that a server left a moment ago, with a connection still in TIME_WAIT.
func TestTimeWait(t *testing.T) {
	alone.Need(t)
	l, err := net.Listen("tcp4", "127.0.0.1:8090")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp4", "127.0.0.1:8090")
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.Close() // the server's end closes first and waits
	c.Close()
	l.Close()
	f, err := sock.Hold("tcp", netip.MustParseAddrPort("0.0.0.0:8090"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if l, err := net.Listen("tcp4", "0.0.0.0:8090"); err == nil {
		l.Close()
		t.Error("a program that sets SO_REUSEADDR got the port")
	}
}

func TestAdopt(t *testing.T) {
	alone.Need(t)
	k := &keeper{files: map[string]*os.File{}}
	log := slog.New(slog.DiscardHandler)
	nx := Holder{"1", "nx"}
	if _, err := New(k, log).Reserve(ctx, nx, []Want{{"tcp", []netip.Addr{all4}, 80, 80}, {"tcp", []netip.Addr{all4}, 99, 99}}); err != nil {
		t.Fatal(err)
	}
	k.Unpark(ctx, Key{"tcp", all4, 80}.parked()) // the keeper died
	k.Park(ctx, Key{"tcp", all4, 90}.parked(), os.Stdin)
	table := New(k, log)
	table.Adopt(ctx, map[Key]Holder{{"tcp", all4, 80}: nx, {"tcp", all4, 99}: nx})
	names, _ := k.Parked(ctx)
	if len(names) != 2 || table.Count() != 2 {
		t.Errorf("parked: %v", names)
	}
	if l, err := net.Listen("tcp4", ":80"); err == nil {
		l.Close()
		t.Error("a lost reservation was not made again")
	}
	table.Release(ctx, Key{"tcp", all4, 80}, Key{"tcp", all4, 99})
	if len(k.files) != 0 {
		t.Error(k.files)
	}
}

func FuzzEntry(f *testing.F) {
	f.Add("   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0")
	f.Add("   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 12345 1")
	f.Fuzz(func(t *testing.T, line string) { sock.Entry(line, "tcp", netip.MustParseAddrPort("127.0.0.1:8080")) })
}

// The sockets that reserve ports go with the keeper; a new one gets others.
func TestRepark(t *testing.T) {
	alone.Need(t)
	k := &keeper{files: map[string]*os.File{}}
	table := New(k, slog.New(slog.DiscardHandler))
	if _, err := table.Reserve(ctx, Holder{"1", "nx"}, []Want{{"tcp", []netip.Addr{all4}, 80, 80}, {"udp", []netip.Addr{lo}, 53, 53}, {"tcp", []netip.Addr{all4}, 81, 81}}); err != nil {
		t.Fatal(err)
	}
	for name := range k.files { // it dies
		k.Unpark(ctx, name)
	}
	taken, err := net.Listen("tcp4", ":81") // and somebody is quick
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	table.Repark(ctx)
	if len(k.files) != 2 || table.Count() != 3 {
		t.Errorf("%d parked, %d held", len(k.files), table.Count())
	}
	if l, err := net.Listen("tcp4", ":80"); err == nil {
		l.Close()
		t.Error("a program of the host got the port")
	}
	table.Release(ctx, Key{"tcp", all4, 80}, Key{"tcp", all4, 81}, Key{"udp", lo, 53})
	if len(k.files) != 0 || table.Count() != 0 {
		t.Errorf("left: %d parked, %d held", len(k.files), table.Count())
	}
}
