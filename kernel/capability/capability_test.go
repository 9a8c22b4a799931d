package capability

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestBit(t *testing.T) {
	for _, c := range []struct {
		name string
		bit  int
		ok   bool
	}{
		{"CAP_CHOWN", unix.CAP_CHOWN, true}, {"chown", unix.CAP_CHOWN, true}, {"Cap_Net_Admin", unix.CAP_NET_ADMIN, true},
		{"SYS_ADMIN", unix.CAP_SYS_ADMIN, true}, {"CAP_CHECKPOINT_RESTORE", unix.CAP_CHECKPOINT_RESTORE, true},
		{"CAP_BPF", unix.CAP_BPF, true}, {"CAP_AUDIT_READ", unix.CAP_AUDIT_READ, true},
		{"", 0, false}, {"CAP_", 0, false}, {"ALL", 0, false}, {"CAP_CAP_CHOWN", 0, false}, {"CAP_NOPE", 0, false}, {"ſYS_ADMIN", 0, false},
	} {
		bit, ok := Bit(c.name)
		if bit != c.bit || ok != c.ok {
			t.Errorf("%q: %d %v, want %d %v", c.name, bit, ok, c.bit, c.ok)
		}
	}
	if len(names) != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d names, the headers know %d", len(names), unix.CAP_LAST_CAP+1)
	}
}

func TestMaskAndNames(t *testing.T) {
	set, unknown := Mask([]string{"CAP_KILL", "mknod", "CAP_FROM_THE_FUTURE"})
	if set != 1<<unix.CAP_KILL|1<<unix.CAP_MKNOD || !slices.Equal(unknown, []string{"CAP_FROM_THE_FUTURE"}) {
		t.Errorf("%#x %q", set, unknown)
	}
	if got := Names(set | 1<<63); !slices.Equal(got, []string{"CAP_KILL", "CAP_MKNOD"}) {
		t.Errorf("%q", got)
	}
	for bit, name := range names {
		if b, ok := Bit(name); !ok || b != bit {
			t.Errorf("%s is bit %d, not %d", name, b, bit)
		}
	}
}

func TestThisKernel(t *testing.T) {
	if Last() < unix.CAP_AUDIT_READ {
		t.Errorf("last capability %d: older than Linux 5.10", Last())
	}
	if all, _ := Mask(Names(All())); all != All() {
		t.Errorf("%#x, want %#x", all, All())
	}
	set, err := Permitted()
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Skip("needs /proc: ", err)
	}
	_, rest, _ := strings.Cut(string(status), "CapPrm:\t")
	want, err := strconv.ParseUint(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]), 16, 64)
	if err != nil || set != want {
		t.Errorf("%#x, /proc says %#x (%v)", set, want, err)
	}
}
