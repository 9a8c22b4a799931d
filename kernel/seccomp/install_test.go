package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// confine names the variable that makes this test binary install the filter it finds there and execute
// its arguments, as a container's init does.
const confine = "BERTH_TEST_SECCOMP"

func TestMain(m *testing.M) {
	if filter := os.Getenv(confine); filter != "" {
		fmt.Fprintln(os.Stderr, runConfined([]byte(filter), os.Args[1:]))
		os.Exit(70)
	}
	os.Exit(m.Run())
}

func runConfined(filter []byte, args []string) error {
	var f Filter
	if err := json.Unmarshal(filter, &f); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := install(&f); err != nil {
		return err
	}
	if args[0] == "probe" {
		return probe()
	}
	return unix.Exec(args[0], args, nil)
}

func install(f *Filter) error {
	prog := unix.SockFprog{Len: uint16(len(f.Code) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&f.Code[0]))}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags), uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("seccomp(2): %w", errno)
	}
	return nil
}

// confined runs a program behind a filter and tells how it ended: its output and exit code, or the
// signal that killed it.
func confined(t *testing.T, f *Filter, args ...string) (out string, code int, sig syscall.Signal) {
	t.Helper()
	filter, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), confine+"="+string(filter))
	var buf bytes.Buffer
	cmd.Stdout, cmd.Stderr = &buf, &buf
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if strings.Contains(buf.String(), "seccomp(2)") {
		t.Fatal(buf.String())
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return buf.String(), -1, status.Signal()
	}
	return buf.String(), status.ExitStatus(), 0
}

// probe makes calls that the profile of TestInstalled decides on and prints the answers.
func probe() error {
	call := func(nr uintptr, a, b uintptr) string {
		_, _, errno := unix.RawSyscall(nr, a, b, 0)
		return fmt.Sprintf("%d ", int(errno))
	}
	s := call(unix.SYS_GETPRIORITY, 0, 0) + call(unix.SYS_GETPRIORITY, 1, 0) + call(unix.SYS_GETPRIORITY, 1<<40, 0) +
		call(unix.SYS_SYNC, 0, 0) + call(unix.SYS_SETNS, 0, 0) + call(unix.SYS_GETPPID, 0, 0)
	fmt.Print(s)
	os.Exit(0)
	return nil
}

func TestInstalled(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"getpriority"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(77)), Args: []specs.LinuxSeccompArg{arg(0, specs.OpEqualTo, 1)}},
		{Names: []string{"getpriority"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(78)), Args: []specs.LinuxSeccompArg{arg(0, specs.OpGreaterThan, 1<<32)}},
		{Names: []string{"sync"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(4000))},
		{Names: []string{"setns"}, Action: specs.ActErrno},
	}}
	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	out, code, sig := confined(t, f, "probe")
	if want := "0 77 78 4000 1 0 "; out != want || code != 0 || sig != 0 {
		t.Errorf("%q %d %v, want %q", out, code, sig, want)
	}
}

func TestInstalledFlags(t *testing.T) {
	for _, flags := range [][]specs.LinuxSeccompFlag{nil, {}, {"SECCOMP_FILTER_FLAG_TSYNC"}, {specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow}} {
		f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: flags})
		if err != nil {
			t.Fatal(err)
		}
		if out, code, sig := confined(t, f, "probe"); code != 0 || sig != 0 {
			t.Errorf("%v: %q %d %v", flags, out, code, sig)
		}
	}
}

// The kernel checks programs (seccomp_check_filter); whatever we compile must pass.
func TestKernelTakesAllFilters(t *testing.T) {
	caps := [][]string{nil, {"CAP_SYS_ADMIN"}}
	var filters []*Filter
	for _, c := range caps {
		p := docker(t, c...)
		for i := range abis {
			if abis[i].big == abiOf(Native()).big {
				p.Architectures = append(p.Architectures, abis[i].name)
			}
		}
		f, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		filters = append(filters, f)
	}
	for _, f := range filters {
		if out, code, sig := confined(t, f, "probe"); code != 0 || sig != 0 {
			t.Errorf("%d instructions: %q %d %v", len(f.Code)/8, out, code, sig)
		}
	}
}

// BenchmarkAttach measures what a filter costs at every start of a container: seccomp(2) on a thread
// that then ends.
func BenchmarkAttach(b *testing.B) {
	f, err := Compile(docker(b))
	if err != nil {
		b.Fatal(err)
	}
	var spent time.Duration
	for b.Loop() {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // not unlocked: the thread ends with the goroutine, its filter too
			if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
				done <- err
				return
			}
			start := time.Now()
			err := install(f)
			spent += time.Since(start)
			done <- err
		}()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns/attach")
	b.ReportMetric(float64(len(f.Code)/8), "insns")
}
